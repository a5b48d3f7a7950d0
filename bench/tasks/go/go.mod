module benchtasks

go 1.22
