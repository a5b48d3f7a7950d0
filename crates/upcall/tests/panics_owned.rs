//! A panic belongs to the owner of its upcall's error.
//!
//! The file is long because each case runs on five kinds of stacks, by shared helpers.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;

use common::{AtDrop, Counted, FIBERS, Log, last_panic, message, poll};
use corosensei::{Coroutine, CoroutineResult};
use memory::Memory;
use upcall::{
    InUse, Refusal, StackChoice, UpcallError, detach, downcall, downcall_on_fiber, enter, entry,
    panic_is_pending, try_downcall, wait, yield_now,
};

type Payload = Box<dyn Any + Send>;

fn number(payload: Payload) -> u32 {
    *payload.downcast().expect("a number")
}

fn error(n: u32) -> UpcallError {
    enter(|| panic_any(n)).unwrap_err()
}

/// Makes an upcall as C does, and returns whether it is served.
///
/// It has a frame of its own, like C. In the frame of a downcall, several calls of one function
/// would be indistinguishable.
#[inline(never)]
extern "C" fn asks() -> bool {
    entry().refuse_after_panic().enter(|| ()).is_ok()
}

/// A downcall that asks `panic_is_pending` in its own frame.
fn raised_twice() -> (bool, Option<u32>) {
    let mut asked = false;
    let raised = raised(|| {
        assert!(!panic_is_pending());
        drop(error(2));
        asked = panic_is_pending();
    });
    (asked, raised)
}

/// The number raised by a downcall of `c`.
fn raised<R>(c: impl FnOnce() -> R) -> Option<u32> {
    catch_unwind(AssertUnwindSafe(|| downcall(c))).err().map(number)
}

/// Runs `f` on the thread's own stack, a pooled stack, an undescribed stack and a fiber's stack.
fn everywhere(f: fn()) {
    f();
    entry().stack(StackChoice::Pooled).enter(f).unwrap();
    let mut coroutine = Coroutine::<(), (), (), _>::with_stack(Memory::new(512 << 10), move |_, ()| f());
    assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
    wait(FIBERS.fiber(f));
    wait(FIBERS.builder().c_on_fiber().build(f).unwrap());
}

#[test]
fn a_payload_that_was_taken_is_raised_by_nobody_else() {
    everywhere(|| {
        let taken = downcall(|| {
            let error = error(7);
            assert!(error.goes_on());
            number(error.into_payload().unwrap())
        });
        assert_eq!(taken, 7);
        assert_eq!(raised(|| drop(error(7))), Some(7));
        // C's last message is set although the payload has been taken.
        downcall(|| {
            _ = enter(|| panic!("for C")).unwrap_err().into_payload();
            assert_eq!(last_panic(), "for C");
        });
    });
}

#[test]
fn an_entry_that_keeps_its_panic_does_not_forward_it() {
    #[upcall::export(on_panic = -1, keep_panic)]
    extern "C" fn keeps() -> c_int {
        panic_any(1u32)
    }
    #[upcall::export(on_panic = |error| { assert!(!error.goes_on()); -2 }, keep_panic, stack = "pooled")]
    extern "C" fn keeps_pooled() -> c_int {
        panic_any(2u32)
    }
    everywhere(|| {
        assert_eq!(downcall(|| (keeps(), keeps_pooled())), (-1, -2));
        for choice in [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled] {
            let keep = || entry().stack(choice).keep_panic().enter(|| panic_any(3u32)).unwrap_err();
            assert_eq!(downcall(|| number(keep().into_payload().unwrap())), 3);
            assert!(downcall(keep).refusal().is_none());
        }
        let refused = entry().keep_panic().min_stack(usize::MAX).enter(|| ()).unwrap_err();
        assert!(refused.refusal().is_some() && !refused.goes_on());
    });
}

#[test]
fn an_error_that_is_kept_goes_on_only_while_its_downcall_is_open() {
    everywhere(|| {
        // The error is dropped in a later upcall of the same downcall.
        let kept = RefCell::new(None);
        let later = raised(|| {
            enter(|| ()).unwrap();
            kept.replace(Some(error(1)));
            assert!(enter(|| kept.borrow().as_ref().unwrap().goes_on()).unwrap());
            enter(|| drop(kept.take())).unwrap();
        });
        assert_eq!(later, Some(1));
        // The error's own downcall has returned. The enclosing downcall does not get the panic.
        let outer = raised(|| {
            let kept = enter(|| downcall(|| error(2))).unwrap();
            assert!(!kept.goes_on());
            drop(kept);
            enter(|| drop(downcall(|| error(3)))).unwrap();
        });
        assert_eq!(outer, None);
        // The error is dropped in an inner downcall. Its own downcall, the outer one, raises the
        // panic.
        let inner = raised(|| {
            let kept = error(4);
            assert_eq!(enter(|| raised(|| drop(kept))).unwrap(), None);
        });
        assert_eq!(inner, Some(4));
        assert_eq!(raised(|| forget(error(5))), None);
    });
}

#[test]
fn of_two_the_one_that_is_let_go_first_goes_on() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = || enter(|| panic_any(Counted(drops.clone()))).unwrap_err();
        assert_eq!(
            raised(|| {
                let (first, second, third) = (error(1), error(2), counted());
                drop(second);
                drop((first, third));
            }),
            Some(2)
        );
        assert_eq!(drops.load(SeqCst), 1);
        let caught = catch_unwind(AssertUnwindSafe(|| downcall(|| drop((counted(), counted())))));
        assert_eq!(drops.load(SeqCst), 2);
        drop(caught);
        assert_eq!(drops.load(SeqCst), 3);
    });
}

#[test]
fn an_error_that_another_thread_drops_ends_there() {
    let drops = Arc::new(AtomicUsize::new(0));
    // The calls of the two threads have equal numbers, each in its own thread.
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel::<UpcallError>();
        let (done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            let raised = catch_unwind(|| {
                downcall(|| {
                    let error = receive.recv().unwrap();
                    assert!(!error.goes_on());
                    drop(error);
                    done.send(()).unwrap();
                })
            });
            assert!(raised.is_ok());
        });
        let counted = Counted(drops.clone());
        scope.spawn(move || {
            let raised = catch_unwind(AssertUnwindSafe(|| {
                downcall(|| {
                    let error = enter(|| panic_any(counted)).unwrap_err();
                    assert!(error.goes_on());
                    send.send(error).unwrap();
                    is_done.recv().unwrap();
                })
            }));
            assert!(raised.is_ok());
        });
    });
    assert_eq!(drops.load(SeqCst), 1);
}

/// The blocks of a thread's open calls are freed with its record.
#[test]
fn an_error_outlives_the_record_of_its_thread() {
    let run = || {
        fn nested(depth: usize, kept: &RefCell<Vec<UpcallError>>) {
            kept.borrow_mut().push(error(1));
            if depth > 0 {
                downcall(|| enter(|| nested(depth - 1, kept)).unwrap());
            }
        }
        let kept = RefCell::new(Vec::new());
        downcall(|| enter(|| nested(100, &kept)).unwrap());
        assert_eq!(detach(), Ok::<(), InUse>(()));
        assert!(kept.borrow().iter().all(|error| !error.goes_on()));
        drop(kept.borrow_mut().split_off(50));
        // This attaches the thread again.
        assert_eq!(raised(|| drop(kept)), None);
    };
    thread::spawn(run).join().unwrap();
}

/// A C library that makes `times` callbacks, and fails if the last one failed.
fn c(times: u32, callback: &mut dyn FnMut(u32) -> c_int) -> c_int {
    (0..times).map(callback).last().unwrap_or(0)
}

/// A binding to `c` with errors as its author would write them: a panic in the callback becomes an
/// error.
fn binding(times: u32, mut callback: impl FnMut(u32) -> Result<(), String>) -> Result<(), String> {
    let mut why = Ok(());
    let failed = downcall(|| {
        c(times, &mut |n| match enter(|| callback(n)) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                why = Err(error);
                -1
            }
            Err(panic) => {
                why = Err(format!("the callback panicked: {}", panic.message()));
                drop(panic.into_payload());
                -1
            }
        })
    });
    if failed == 0 { Ok(()) } else { why }
}

#[test]
fn two_bindings_that_nest_keep_their_errors() {
    everywhere(|| {
        let inner = binding(1, |_| binding(3, |n| panic!("at {n}"))).unwrap_err();
        assert_eq!(inner, "the callback panicked: at 2");
        let outer = binding(1, |_| {
            assert_eq!(binding(1, |_| panic!("inner")).unwrap_err(), "the callback panicked: inner");
            panic!("outer")
        });
        assert_eq!(outer.unwrap_err(), "the callback panicked: outer");
        // The outer downcall would continue a pending panic, but the binding leaves none.
        assert!(catch_unwind(|| downcall(|| binding(1, |_| panic!("in")))).unwrap().is_err());
    });
}

#[test]
fn an_entry_refuses_after_a_panic() {
    #[upcall::export(on_panic = |error| if error.refusal() == Some(&Refusal::AfterPanic) { -2 } else { -1 }, refuse_after_panic)]
    extern "C" fn third(n: c_int) -> c_int {
        assert!(n < 3);
        n
    }
    #[upcall::export(refuse_after_panic)]
    extern "C" fn third_or_zero(n: c_int) -> c_int {
        assert!(n < 3);
        n
    }
    everywhere(|| {
        let log = RefCell::new(Vec::new());
        let raised = catch_unwind(AssertUnwindSafe(|| {
            downcall(|| {
                for n in 1..5 {
                    let answer = third(n);
                    log.borrow_mut().push((answer, third_or_zero(n), panic_is_pending()));
                }
                assert_eq!(last_panic(), "assertion failed: n < 3");
                let dropped = Counted(Arc::new(AtomicUsize::new(0)));
                let drops = dropped.0.clone();
                let refused = entry().refuse_after_panic().enter(move || drop(dropped)).unwrap_err();
                assert!(refused.goes_on() && drops.load(SeqCst) == 1);
            })
        }));
        assert!(raised.is_err() && !panic_is_pending());
        assert_eq!(*log.borrow(), [(1, 1, false), (2, 2, false), (-1, 0, true), (-2, 0, true)]);
        assert_eq!(third(2), 2);
    });
}

#[test]
fn only_the_innermost_downcall_is_asked() {
    everywhere(|| {
        let raised = raised(|| {
            drop(error(1));
            assert!(!asks() && panic_is_pending());
            // A panic is pending at the outer downcall. The inner downcall does not see it, even
            // from the same function.
            downcall(|| assert!(!panic_is_pending()));
            assert_eq!(raised_twice(), (true, Some(2)));
            for choice in [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled] {
                let inside = || {
                    assert!(panic_is_pending());
                    downcall(|| assert!(asks() && !panic_is_pending()));
                    assert_eq!(raised(|| drop(error(2))), Some(2));
                    assert!(panic_is_pending());
                };
                entry().stack(choice).enter(inside).unwrap();
            }
        });
        assert_eq!(raised, Some(1));
        assert!(asks());
    });
}

#[test]
fn another_coroutine_is_not_concerned() {
    // Windows tells of the stack in use. The first answer counts for the thread's own.
    if cfg!(windows) {
        upcall::attach().unwrap();
    }
    let mut waiting =
        Coroutine::<(), (), Option<u32>, _>::with_stack(Memory::new(512 << 10), |yielder, ()| {
            raised(|| {
                drop(error(1));
                yielder.suspend(());
                assert!(panic_is_pending());
            })
        });
    assert!(matches!(waiting.resume(()), CoroutineResult::Yield(())));
    assert!(asks() && !panic_is_pending());
    downcall(|| assert!(asks() && !panic_is_pending()));
    assert!(matches!(waiting.resume(()), CoroutineResult::Return(Some(1))));
}

#[test]
fn a_downcall_gives_cs_value_and_the_panic() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = || Counted(drops.clone());
        let (value, payload) = try_downcall(|| {
            drop(error(1));
            drop(error(2));
            counted()
        })
        .map(drop)
        .map_err(|(value, payload)| {
            assert_eq!(drops.load(SeqCst), 0);
            (value, payload)
        })
        .unwrap_err();
        assert_eq!((number(payload), value.0.load(SeqCst)), (1, 0));
        drop(value);
        assert_eq!(drops.load(SeqCst), 1);
        assert!(try_downcall(counted).is_ok());
        assert!(try_downcall(|| drop(error(1).into_payload())).is_ok());
        // C's own closure panics.
        let own = || try_downcall(|| panic_any(3u32)).map_err(|((), _)| ());
        assert_eq!(number(catch_unwind(own).unwrap_err()), 3);
        // While the thread unwinds, nothing can be raised.
        let seen = Cell::new(0);
        let first = catch_unwind(AssertUnwindSafe(|| {
            let _drops =
                AtDrop(|| seen.set(try_downcall(|| drop(error(4))).map_err(|(_, p)| number(p)).unwrap_err()));
            panic_any(5u32)
        }));
        assert_eq!((number(first.unwrap_err()), seen.get()), (5, 4));
    });
}

/// Drops a fiber during an upcall's wait, and passes the upcall's error to `shim`. Returns the log.
fn dropped_in_the_middle(shim: fn(Result<(), UpcallError>)) -> Vec<&'static str> {
    let log = Log::default();
    let inside = log.clone();
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        let _end = inside.at_drop("unwound");
        downcall_on_fiber(|| {
            shim(enter(yield_now));
            // Further upcalls are refused.
            let refused = enter(|| ()).unwrap_err();
            assert_eq!(refused.refusal(), Some(&Refusal::FiberDropped));
            let refused = entry().refuse_after_panic().enter(|| ()).unwrap_err();
            assert_eq!(refused.refusal(), Some(&Refusal::FiberDropped));
            inside.add("C returns");
        });
        inside.add("went on");
    }));
    assert!(poll(&mut fiber).is_pending());
    drop(fiber);
    log.take()
}

#[test]
fn a_dropped_fiber_is_unwound_whatever_becomes_of_the_error() {
    let expected = ["C returns", "unwound"];
    assert_eq!(dropped_in_the_middle(drop), expected);
    assert_eq!(
        dropped_in_the_middle(|result| assert!(result.unwrap_err().into_payload().is_none())),
        expected
    );
    assert_eq!(dropped_in_the_middle(forget), expected);
    assert_eq!(dropped_in_the_middle(|result| assert!(result.unwrap_err().goes_on())), expected);
    let log = Log::default();
    let inside = log.clone();
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        let _end = inside.at_drop("unwound");
        downcall_on_fiber(|| _ = entry().keep_panic().enter(yield_now));
        inside.add("went on");
    }));
    assert!(poll(&mut fiber).is_pending());
    drop(fiber);
    assert_eq!(log.take(), ["unwound"]);
}

#[test]
fn the_value_of_a_dropped_fibers_downcall_is_not_lost() {
    for resumes in [true, false] {
        let log = Log::default();
        let inside = log.clone();
        let mut fiber = Box::pin(
            FIBERS
                .builder()
                .c_on_fiber()
                .build(move || {
                    let _end = inside.at_drop("unwound");
                    let answer = try_downcall(|| {
                        drop(enter(yield_now));
                        7
                    });
                    let (value, payload) = answer.unwrap_err();
                    assert_eq!(value, 7);
                    inside.add("has the value");
                    if resumes {
                        let _calls = AtDrop(|| downcall(|| ()));
                        resume_unwind(payload);
                    }
                    drop(payload);
                    enter(|| ()).unwrap();
                    inside.add("waits again");
                    yield_now();
                    inside.add("went on");
                })
                .unwrap(),
        );
        assert!(poll(&mut fiber).is_pending());
        drop(fiber);
        let expected: &[_] = match resumes {
            true => &["has the value", "unwound"],
            false => &["has the value", "waits again", "unwound"],
        };
        assert_eq!(log.take(), expected);
    }
}

/// If a fiber resumes while its thread panics, only the fiber's own unwinding counts as a panic.
#[test]
fn a_fiber_is_dropped_among_panics() {
    let log = Log::default();
    let inside = log.clone();
    let unwound = move || {
        let _end = inside.at_drop("unwound");
        let answer = try_downcall(|| drop(enter(yield_now)));
        inside.add("has the value");
        // The panic pending at this downcall cannot be raised, since this code unwinds.
        let _calls = AtDrop(|| downcall(|| drop(error(9))));
        answer.unwrap_or_else(|((), payload)| resume_unwind(payload));
    };
    let mut fiber = Box::pin(FIBERS.builder().c_on_fiber().build(unwound).unwrap());
    assert!(poll(&mut fiber).is_pending());
    let first = catch_unwind(AssertUnwindSafe(move || {
        let _fiber = fiber;
        panic!("first")
    }));
    assert_eq!(message(first.unwrap_err()), "first");
    assert_eq!(log.take(), ["has the value", "unwound"]);
}
