// Package main is the Go library that the C programs in ../c and ../waiting/c link in place of the Rust ones.
package main

/*
typedef int callback(void *argument);
typedef int function(void);

static inline int call(callback *f, void *argument) { return f(argument); }
static inline int call_empty(function *f) { return f(); }
*/
import "C"
import "unsafe"

// An empty upcall.
//
//export bench_upcall
func bench_upcall() C.int { return 0 }

// An upcall that calls C back.
//
//export bench_call
func bench_call(f *C.callback, argument unsafe.Pointer) C.int { return C.call(f, argument) }

// An upcall that calls an empty C function n times.
//
//export bench_downcalls
func bench_downcalls(f *C.function, n C.long) {
	for i := C.long(0); i < n; i++ {
		C.call_empty(f)
	}
}

func main() {}
