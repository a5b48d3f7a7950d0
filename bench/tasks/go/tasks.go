// Package main is the Go library: goroutines that call C back, cancelled through a context.
package main

/*
#include <stdint.h>

typedef void callback(void *data, int status, int64_t value);

static inline void call(callback *f, void *data, int status, int64_t value) { f(data, status, value); }
*/
import "C"
import (
	"context"
	"runtime"
	"runtime/cgo"
	"sync/atomic"
	"unsafe"
)

var waiting atomic.Uintptr

func run(ctx context.Context, kind C.int) (C.int, C.int64_t) {
	switch kind {
	case 0, 2:
	case 1:
		runtime.Gosched()
	default:
		waiting.Add(1)
		<-ctx.Done()
		return 4, 0
	}
	return 1, 7
}

//export go_start
func go_start(kind C.int, f *C.callback, data unsafe.Pointer) C.uintptr_t {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		status, value := run(ctx, kind)
		C.call(f, data, status, value)
	}()
	return C.uintptr_t(cgo.NewHandle(cancel))
}

//export go_cancel
func go_cancel(handle C.uintptr_t) {
	cgo.Handle(handle).Value().(context.CancelFunc)()
}

//export go_free
func go_free(handle C.uintptr_t) {
	go_cancel(handle)
	cgo.Handle(handle).Delete()
}

//export bench_waiting
func bench_waiting() C.size_t { return C.size_t(waiting.Load()) }

func main() {}
