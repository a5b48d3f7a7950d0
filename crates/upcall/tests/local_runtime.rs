//! Run queues of host-driven threads. The file is long because its cases share their helpers.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::FIBERS;
use common::sys::{event_of, is_signalled};
use common::{Log, time_limit};
use upcall::{JoinHandle, LocalRuntime, LocalRuntimeError, sleep, wait, yield_now};

fn for_ever() {
    wait(std::future::pending::<()>());
}

/// Whether the event would wake the host's loop. Waits for that, up to `milliseconds`.
fn readable(runtime: &LocalRuntime, milliseconds: u16) -> bool {
    is_signalled(event_of(runtime), milliseconds.into())
}

#[test]
fn it_runs_as_many_as_asked_for() {
    let runtime = FIBERS.local_runtime().unwrap();
    let log = Log::default();
    for name in ["one", "two", "three"] {
        let log = log.clone();
        drop(runtime.spawn_local(move || {
            log.add(name);
            yield_now();
            log.add(name);
        }));
    }
    assert_eq!(runtime.run_ready(0), 0);
    assert!(log.take().is_empty(), "nothing runs inside spawn_local");
    assert_eq!(runtime.run_ready(2), 2);
    assert_eq!(log.take(), ["one", "two"]);
    assert_eq!(runtime.run_ready(2), 2);
    assert_eq!(log.take(), ["three", "one"]);
    assert_eq!(runtime.run_ready(usize::MAX), 2);
    assert_eq!(log.take(), ["two", "three"]);
    assert_eq!(runtime.run_ready(usize::MAX), 0);
}

#[test]
fn those_that_yield_take_turns() {
    let runtime = FIBERS.local_runtime().unwrap();
    let turns = Rc::new(RefCell::new(Vec::new()));
    let fibers: Vec<_> = (0..4)
        .map(|own| {
            let turns = turns.clone();
            runtime.spawn_local(move || {
                for _ in 0..100 {
                    turns.borrow_mut().push(own);
                    yield_now();
                }
            })
        })
        .collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    assert!(turns.take().into_iter().eq((0..400).map(|turn| turn % 4)));
}

#[test]
fn its_descriptor_is_readable_while_something_can_run() {
    let _limit = time_limit("its_descriptor_is_readable_while_something_can_run");
    let runtime = FIBERS.local_runtime().unwrap();
    assert!(!readable(&runtime, 0));
    let (sender, receiver) = async_channel::bounded(1);
    let fiber = runtime.spawn_local(move || wait(receiver.recv()).unwrap());
    assert!(readable(&runtime, 0));
    assert!(readable(&runtime, 0), "level-triggered");
    assert_eq!(runtime.run_ready(1), 1);
    assert!(!readable(&runtime, 0), "it waits");
    let waker = thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        sender.send_blocking(3).unwrap();
    });
    assert!(readable(&runtime, 30_000), "woken by another thread");
    assert!(readable(&runtime, 0));
    assert_eq!(runtime.run_ready(usize::MAX), 1);
    assert!(!readable(&runtime, 0));
    assert_eq!(fiber.join().unwrap(), 3);
    waker.join().unwrap();
    (0..2).for_each(|_| drop(runtime.spawn_local(|| ())));
    assert_eq!(runtime.run_ready(1), 1);
    assert!(readable(&runtime, 0), "one is left");
    assert_eq!(runtime.run_ready(1), 1);
    assert!(!readable(&runtime, 0));
}

/// A host's loop: sleeps on the descriptor alone.
#[test]
fn no_wake_is_lost() {
    let _limit = time_limit("no_wake_is_lost");
    const MESSAGES: u32 = 5000;
    let runtime = FIBERS.local_runtime().unwrap();
    let (there, here) = async_channel::bounded(1);
    let (back, answers) = async_channel::bounded(1);
    let echo = thread::spawn(move || {
        while let Ok(n) = here.recv_blocking() {
            back.send_blocking(n).unwrap();
        }
    });
    let fiber = runtime.spawn_local(move || {
        for n in 0..MESSAGES {
            wait(there.send(n)).unwrap();
            assert_eq!(wait(answers.recv()).unwrap(), n);
        }
    });
    while !fiber.is_finished() {
        assert!(readable(&runtime, 30_000));
        runtime.run_ready(usize::MAX);
    }
    fiber.join().unwrap();
    echo.join().unwrap();
}

#[test]
fn dropped_with_fibers_in_every_state() {
    let runtime = FIBERS.local_runtime().unwrap();
    let log = Log::default();
    let start = |name, body: fn()| {
        let said = log.at_drop(name);
        runtime.spawn_local(move || {
            let _said = said;
            body();
        })
    };
    let waits = start("waits", for_ever);
    let ready = start("ready", yield_now);
    let ended = start("ended", || ());
    assert_eq!(runtime.run_ready(3), 3);
    assert_eq!(log.take(), ["ended"]);
    let not_begun = start("not begun", || unreachable!());
    drop(runtime);
    let mut dropped = log.take();
    dropped.sort();
    assert_eq!(dropped, ["not begun", "ready", "waits"]);
    assert!(ended.join().is_ok());
    for aborted in [waits, ready, not_begun] {
        assert!(aborted.is_finished() && aborted.join().unwrap_err().is_aborted());
    }
    FIBERS.local_runtime().expect("the thread may have another");
}

#[test]
fn dropped_from_inside_its_own_fiber() {
    let log = Log::default();
    let inner = log.clone();
    let runtime = Rc::new(Cell::new(FIBERS.local_runtime().ok()));
    let own = runtime.clone();
    let held = runtime.take().unwrap();
    let waits = held.spawn_local(for_ever);
    let said = log.at_drop("the closure");
    let drops = held.spawn_local(move || {
        let _said = said;
        drop(own.take());
        inner.add("goes on");
        for_ever();
    });
    // `run_ready` borrows the runtime. So in safe code, only a wait can run the fiber that drops
    // it.
    runtime.set(Some(held));
    let waited = FIBERS.spawn(|| sleep(Duration::from_millis(20)));
    waited.join().unwrap();
    assert!(runtime.take().is_none());
    assert_eq!(log.take(), ["goes on", "the closure"]);
    assert!(waits.join().unwrap_err().is_aborted());
    assert!(drops.join().unwrap_err().is_aborted());
    FIBERS.local_runtime().expect("the thread may have another");
}

#[test]
fn a_thread_has_one_at_most() {
    let first = FIBERS.local_runtime().unwrap();
    let error = FIBERS.local_runtime().unwrap_err();
    assert!(matches!(error, LocalRuntimeError::ThreadHasOne));
    assert!(error.to_string().starts_with("the thread has a LocalRuntime already"), "{error}");
    drop(first);
    drop(FIBERS.local_runtime().unwrap());
    let on_a_worker = FIBERS.spawn(|| FIBERS.local_runtime().map(drop)).join().unwrap();
    assert!(matches!(on_a_worker, Err(LocalRuntimeError::ThreadHasOne)));
}

#[test]
fn spawn_local_finds_the_threads_own() {
    let log = Log::default();
    let said = log.at_drop("closure");
    let error = FIBERS.spawn_local(move || drop(said)).join().unwrap_err();
    assert!(error.is_refused());
    assert!(error.to_string().contains("this thread has no LocalRuntime"), "{error}");
    assert_eq!(log.take(), ["closure"]);
    let error = FIBERS.spawn(|| FIBERS.spawn_local(|| ()).join()).join().unwrap().unwrap_err();
    assert!(error.is_refused(), "a worker has none for the host");
    let runtime = FIBERS.local_runtime().unwrap();
    let fiber = FIBERS.spawn_local(|| FIBERS.spawn_local(|| 5).join().unwrap());
    assert_eq!(fiber.join().unwrap(), 5);
    drop(runtime);
    assert!(FIBERS.spawn_local(|| ()).join().unwrap_err().is_refused());
}

#[test]
fn a_result_that_may_be_sent_is_joined_from_another_thread() {
    let _limit = time_limit("a_result_that_may_be_sent_is_joined_from_another_thread");
    let runtime = FIBERS.local_runtime().unwrap();
    let not_sent = Rc::new(20);
    let fiber = runtime.spawn_local(move || {
        yield_now();
        *not_sent + 1
    });
    let joins = thread::spawn(move || fiber.join().unwrap());
    while !joins.is_finished() {
        runtime.run_ready(usize::MAX);
    }
    assert_eq!(joins.join().unwrap(), 21);
}

#[test]
fn aborted_from_another_thread_it_ends_on_its_own() {
    let _limit = time_limit("aborted_from_another_thread_it_ends_on_its_own");
    let runtime = FIBERS.local_runtime().unwrap();
    let (sender, receiver) = mpsc::channel();
    let fiber = runtime.spawn_local(move || {
        let _said = common::AtDrop(move || sender.send(thread::current().id()).unwrap());
        for_ever();
    });
    runtime.run_ready(usize::MAX);
    let joins = thread::spawn(move || {
        fiber.abort();
        fiber.join().unwrap_err()
    });
    assert!(readable(&runtime, 30_000));
    assert_eq!(runtime.run_ready(usize::MAX), 1);
    assert!(joins.join().unwrap().is_aborted());
    assert_eq!(receiver.recv().unwrap(), thread::current().id());
}

#[test]
fn a_blocking_wait_runs_what_is_ready() {
    let _limit = time_limit("a_blocking_wait_runs_what_is_ready");
    let runtime = FIBERS.local_runtime().unwrap();
    let (sender, receiver) = async_channel::bounded(1);
    let (answer, answers) = async_channel::bounded(1);
    let fiber: JoinHandle<()> = runtime.spawn_local(move || {
        let n: i32 = wait(receiver.recv()).unwrap();
        wait(answer.send(n + 1)).unwrap();
    });
    wait(sender.send(1)).unwrap();
    assert_eq!(wait(answers.recv()).unwrap(), 2);
    fiber.join().unwrap();
    // The descriptor may stay readable until the next `run_ready`, at most.
    runtime.run_ready(usize::MAX);
    assert!(!readable(&runtime, 0));
}

#[test]
fn many_threads_have_theirs_at_a_time() {
    let _limit = time_limit("many_threads_have_theirs_at_a_time");
    let (to_next, mut from_last) = async_channel::bounded::<u32>(1);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (sender, receiver) = async_channel::bounded(1);
            let from_last = std::mem::replace(&mut from_last, receiver);
            thread::spawn(move || {
                let runtime = FIBERS.local_runtime().unwrap();
                let passes_on = runtime.spawn_local(move || {
                    while let Ok(n) = wait(from_last.recv()) {
                        wait(sender.send(n + 1)).unwrap();
                    }
                });
                passes_on.join().unwrap();
            })
        })
        .collect();
    for n in 0..200 {
        to_next.send_blocking(n).unwrap();
        assert_eq!(from_last.recv_blocking().unwrap(), n + 8);
    }
    drop(to_next);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Polls the runtime's descriptor and runs ready fibers, until `is` holds.
fn run_until(runtime: &LocalRuntime, is: impl Fn() -> bool) {
    while !is() {
        readable(runtime, 1000);
        runtime.run_ready(usize::MAX);
    }
}

#[test]
fn other_threads_add_fibers() {
    let _limit = time_limit("other_threads_add_fibers");
    let runtime = FIBERS.local_runtime().unwrap();
    let here = thread::current().id();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let handle = runtime.handle();
            thread::spawn(move || {
                for number in 0..500 {
                    let fiber = handle.spawn(move || {
                        yield_now();
                        (thread::current().id(), number)
                    });
                    assert_eq!(fiber.join().unwrap(), (here, number));
                }
            })
        })
        .collect();
    run_until(&runtime, || threads.iter().all(|thread| thread.is_finished()));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let named = runtime.handle().spawn_with(FIBERS.builder().stack_size(1 << 20), || 42);
    // A wait of the thread runs the fiber.
    assert_eq!(named.join().unwrap(), 42);
}

#[test]
fn what_others_add_makes_the_descriptor_readable() {
    let runtime = FIBERS.local_runtime().unwrap();
    let handle = FIBERS.local_runtime_handle().unwrap();
    assert!(!readable(&runtime, 0));
    let fiber = thread::spawn(move || handle.spawn(|| 42)).join().unwrap();
    assert!(readable(&runtime, 1000));
    assert!(!fiber.is_finished(), "nothing runs before the host says so");
    assert_eq!(runtime.run_ready(usize::MAX), 1);
    assert!(!readable(&runtime, 0));
    assert_eq!(fiber.join().unwrap(), 42);
}

#[test]
fn a_handle_of_a_runtime_that_has_ended_adds_nothing() {
    /// Sends the id of the thread that drops it.
    struct TellsThread(mpsc::Sender<thread::ThreadId>);
    impl Drop for TellsThread {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    let _limit = time_limit("a_handle_of_a_runtime_that_has_ended_adds_nothing");
    let here = thread::current().id();
    let runtime = FIBERS.local_runtime().unwrap();
    let handle = runtime.handle();
    assert!(!handle.has_ended() && format!("{handle:?}").contains("has_ended: false"));
    let added = handle.spawn(for_ever);
    drop(runtime);
    assert!(added.join().unwrap_err().is_aborted(), "it was added before");
    // The thread's next runtime uses the same queue.
    let next = FIBERS.local_runtime().unwrap();
    assert!(handle.has_ended() && !next.handle().has_ended());
    let (sender, receiver) = mpsc::channel();
    let told = TellsThread(sender);
    let refused = thread::spawn(move || {
        let error = handle.spawn(move || drop(told)).join().unwrap_err();
        (thread::current().id(), error)
    });
    let (there, error) = refused.join().unwrap();
    assert!(error.is_refused() && error.to_string().contains("has ended"), "{error}");
    assert_eq!(receiver.recv().unwrap(), there, "the closure is dropped by the caller, not on {here:?}");
    assert_eq!(next.run_ready(usize::MAX), 0);
}

#[test]
fn the_thread_of_a_handle_ends_with_the_runtime_forgotten() {
    let _limit = time_limit("the_thread_of_a_handle_ends_with_the_runtime_forgotten");
    for waits in [false, true] {
        let (sender, receiver) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = FIBERS.local_runtime().unwrap();
            if waits {
                drop(runtime.spawn_local(for_ever));
                runtime.run_ready(usize::MAX);
            }
            sender.send(runtime.handle()).unwrap();
            std::mem::forget(runtime);
            ends.recv().unwrap();
        });
        let handle = receiver.recv().unwrap();
        let added = handle.spawn(|| ());
        end.send(()).unwrap();
        thread.join().unwrap();
        assert!(added.join().unwrap_err().is_aborted());
        assert!(handle.has_ended());
        assert!(handle.spawn(|| ()).join().unwrap_err().is_refused());
    }
}

#[test]
fn adding_while_the_runtime_ends() {
    let _limit = time_limit("adding_while_the_runtime_ends");
    for _ in 0..200 {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = FIBERS.local_runtime().unwrap();
            sender.send(runtime.handle()).unwrap();
            runtime.run_ready(1);
        });
        let handle = receiver.recv().unwrap();
        let fibers: Vec<_> = (0..20).map(|number| handle.spawn(move || number)).collect();
        for (number, fiber) in fibers.into_iter().enumerate() {
            // Each join returns, none waits for ever.
            match fiber.join() {
                Ok(given) => assert_eq!(given, number),
                Err(error) => assert!(error.is_aborted() || error.is_refused(), "{error}"),
            }
        }
        thread.join().unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_handle_in_the_child_of_a_fork() {
    if common::part().is_none() {
        let name = "a_handle_in_the_child_of_a_fork";
        common::stderr_of_success(&common::child(name, "forks", &[]));
        return;
    }
    let (sender, receiver) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        let runtime = FIBERS.local_runtime().unwrap();
        sender.send(runtime.handle()).unwrap();
        ends.recv().unwrap();
    });
    let lost = receiver.recv().unwrap();
    let runtime = FIBERS.local_runtime().unwrap();
    let own = runtime.handle();
    // SAFETY: the child calls only upcall, which supports children of a fork, and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = lost.has_ended() && lost.spawn(|| ()).join().is_err_and(|error| error.is_refused());
        let goes_on = own.spawn(|| 42).join().is_ok_and(|answer| answer == 42);
        // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
        unsafe { libc::_exit(i32::from(!(refused && goes_on))) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing, and `child` is an unreaped child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    end.send(()).unwrap();
    other.join().unwrap();
}
