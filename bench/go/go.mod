module benchguest

go 1.21
