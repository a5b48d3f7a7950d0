package main

/*
#include <unistd.h>
*/
import "C"
import (
	"runtime"
	"sync"
	"time"
)

const (
	batch    = 1000
	sleepers = 64
)

// Does what `what` names, `count` times, in a goroutine that is bound to no thread; returns the nanoseconds that it took, or -1 if it
// cannot do that.
//
//export bench_waiting
func bench_waiting(_, what *C.char, count C.long) C.double {
	work, known := map[string]func(int){
		"spawn": spawnAndJoin, "batches": batches, "yield": yields, "channel": roundTrips,
		"park": park, "blocking": blockingCalls,
	}[C.GoString(what)]
	if !known {
		return -1
	}
	took := make(chan time.Duration)
	go func() {
		start := time.Now()
		work(int(count))
		took <- time.Since(start)
	}()
	return C.double((<-took).Nanoseconds())
}

func spawnAndJoin(count int) {
	ended := make(chan struct{})
	for range count {
		go func() { ended <- struct{}{} }()
		<-ended
	}
}

func batches(count int) {
	for before := 0; before < count; before += batch {
		together(min(batch, count-before), func() {})
	}
}

// Calls `work` in `count` goroutines.
func together(count int, work func()) {
	var all sync.WaitGroup
	all.Add(count)
	for range count {
		go func() {
			work()
			all.Done()
		}()
	}
	all.Wait()
}

func yields(count int) {
	together(2, func() {
		for range count / 2 {
			runtime.Gosched()
		}
	})
}

// Channels to one that answers, and back.
type ends struct{ sender, receiver chan int }

func newEnds() ends {
	there, back := make(chan int, 1), make(chan int, 1)
	go func() {
		for number := range there {
			back <- number
		}
	}()
	return ends{there, back}
}

func (ours ends) exchange() {
	ours.sender <- 1
	<-ours.receiver
}

func roundTrips(count int) {
	ours := newEnds()
	for range count {
		ours.exchange()
	}
	close(ours.sender)
}

// Nothing is ever sent.
var nothing = make(chan int)

func park(count int) {
	for number := range count {
		go func() { <-nothing }()
		if number%batch == 0 || number == count-1 {
			runtime.Gosched()
		}
	}
}

func blockingCalls(count int) {
	together(sleepers, func() {
		for range count {
			C.usleep(1000)
		}
	})
}

var answering = sync.OnceValue(newEnds)

// Sends to a goroutine, and receives its answer.
//
//export bench_exchange
func bench_exchange() C.int {
	answering().exchange()
	return 0
}
