module benchguest

go 1.22
