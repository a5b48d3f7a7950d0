//! The stack of C called by a fiber: chosen by the fiber's maker, unless the call insists.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Comparator, FIBERS, Log, message, poll};
use stackbounds::current;
use upcall::{
    Builder, StackChoice, downcall, downcall_on_fiber, downcall_on_system_stack, enter, entry, try_downcall,
    wait, with_stack, yield_now,
};

fn c_on_fiber() -> Builder {
    FIBERS.builder().c_on_fiber()
}

/// The lowest address of the caller's stack.
fn stack() -> usize {
    current().low()
}

/// Runs `f` to its end, on a fiber made by `builder`.
fn run<T: 'static>(builder: Builder, f: impl FnOnce() -> T + 'static) -> T {
    wait(builder.build(f).unwrap())
}

#[test]
fn it_stays_where_the_fiber_was_made_so() {
    let threads = downcall(stack);
    run(FIBERS.builder(), move || {
        assert_eq!((downcall(stack), downcall_on_system_stack(stack)), (threads, threads));
    });
    run(c_on_fiber(), move || {
        let own = stack();
        assert_ne!(own, threads);
        assert_eq!((downcall(stack), downcall_on_fiber(stack)), (own, own));
        assert_eq!(try_downcall(stack).unwrap(), own);
        assert_eq!(downcall_on_system_stack(stack), threads);
        assert_eq!(downcall(stack), own);
    });
    // Outside fibers, there is no choice.
    let pooled = || (stack() != threads, downcall(stack), downcall_on_system_stack(stack));
    assert_eq!(entry().stack(StackChoice::Pooled).enter(pooled).unwrap(), (true, threads, threads));
}

#[test]
fn it_stays_with_spawn_and_local_fibers() {
    let stays = || downcall(stack) == stack();
    assert!(c_on_fiber().spawn(stays).join().unwrap());
    assert!(!FIBERS.spawn(stays).join().unwrap());
    let runtime = FIBERS.local_runtime().unwrap();
    assert!(runtime.spawn_local_with(c_on_fiber(), stays).join().unwrap());
    assert!(!runtime.spawn_local(stays).join().unwrap());
}

#[test]
fn a_wait_below_it_suspends_the_fiber() {
    let log = Log::default();
    let sorts = |name: &'static str| {
        let log = log.clone();
        Box::pin(
            c_on_fiber()
                .build(move || {
                    let compare = |a: i32, b: i32| {
                        log.add(name);
                        yield_now();
                        a.cmp(&b)
                    };
                    let (comparator, mut numbers) = (Comparator::new(&compare), [2, 1]);
                    downcall(|| comparator.sort(&mut numbers));
                    assert_eq!(numbers, [1, 2]);
                })
                .unwrap(),
        )
    };
    let (mut one, mut two) = (sorts("one"), sorts("two"));
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    assert!(poll(&mut one).is_ready() && poll(&mut two).is_ready());
    assert_eq!(log.take(), ["one", "two"]);
}

/// C on an extension stack has the room requested from `with_stack`.
#[test]
fn it_stays_on_a_further_stack() {
    let threads = downcall(stack);
    run(c_on_fiber(), move || {
        let own = stack();
        with_stack(1 << 20, || {
            let further = stack();
            assert_ne!(further, own);
            assert_eq!(downcall(stack), further);
            assert_eq!(downcall_on_system_stack(stack), threads);
            with_stack(4 << 20, || assert_eq!(downcall(stack), stack()));
            let mut suspended = false;
            downcall(|| {
                suspended = enter(|| {
                    yield_now();
                    stack() == further
                })
                .unwrap();
            });
            assert!(suspended);
        });
        assert_eq!(downcall(stack), own);
    });
    run(FIBERS.builder(), move || with_stack(1 << 20, || assert_eq!(downcall(stack), threads)));
}

#[test]
fn what_c_on_a_fiber_calls_leaves_it_only_if_it_insists() {
    for builder in [FIBERS.builder(), c_on_fiber()] {
        let threads = downcall(stack);
        run(builder, move || {
            let own = stack();
            downcall_on_fiber(|| {
                let from_there = || {
                    assert_eq!(downcall(stack), own);
                    assert_eq!(downcall_on_system_stack(stack), threads);
                    assert_eq!(downcall(stack), own);
                };
                // From the fiber's stack, from a pooled stack entered there, and from an extension
                // stack beyond.
                entry().stack(StackChoice::Caller).enter(from_there).unwrap();
                entry().stack(StackChoice::Pooled).enter(from_there).unwrap();
                let beyond = || with_stack(1 << 20, || assert_eq!(downcall_on_system_stack(stack), threads));
                entry().stack(StackChoice::Pooled).enter(beyond).unwrap();
                // C on the thread's stack makes an upcall, with downcalls of its own.
                let twice = || {
                    downcall_on_system_stack(|| {
                        let inside = || {
                            assert_eq!(downcall(stack), threads);
                            let pooled = || assert_eq!(downcall(stack), threads);
                            downcall(|| entry().stack(StackChoice::Pooled).enter(pooled).unwrap());
                        };
                        enter(inside).unwrap();
                    });
                };
                entry().stack(StackChoice::Pooled).enter(twice).unwrap();
            });
            assert_eq!(stack(), own);
        });
    }
}

/// A fiber resumes on a stack beyond C. Its downcalls still go to C's stack.
#[test]
fn beyond_c_it_is_the_same_after_a_wait() {
    for builder in [FIBERS.builder(), c_on_fiber()] {
        let threads = downcall(stack);
        run(builder, move || {
            let own = stack();
            let beyond = move || {
                with_stack(1 << 20, || {
                    for _ in 0..2 {
                        assert_eq!((downcall(stack), downcall_on_system_stack(stack)), (own, threads));
                        yield_now();
                    }
                });
            };
            downcall_on_fiber(|| entry().stack(StackChoice::Pooled).enter(beyond).unwrap());
        });
    }
}

#[test]
fn panics_come_back_from_there() {
    run(c_on_fiber(), || {
        downcall(|| {
            let insists = || {
                let panics = || downcall_on_system_stack(|| drop(enter(|| panic!("below")).unwrap_err()));
                let raised = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
                assert_eq!(message(raised), "below");
                let own = || downcall_on_system_stack(|| panic!("its own"));
                assert_eq!(message(catch_unwind(own).unwrap_err()), "its own");
            };
            entry().stack(StackChoice::Caller).enter(insists).unwrap();
            entry().stack(StackChoice::Pooled).enter(insists).unwrap();
        });
    });
}

/// A wait below `downcall_on_system_stack` blocks the thread, as it does outside fibers.
#[test]
fn a_wait_below_an_insisting_call_does_not_suspend() {
    let mut fiber =
        Box::pin(c_on_fiber().build(|| downcall_on_system_stack(|| enter(yield_now).unwrap())).unwrap());
    assert!(poll(&mut fiber).is_ready());
}

/// The stack returns to the pool without the fiber's choice.
#[test]
fn the_choice_ends_with_the_fiber() {
    let threads = downcall(stack);
    let used = run(c_on_fiber(), stack);
    let again = run(FIBERS.builder(), move || (stack(), downcall(stack)));
    assert_eq!(again, (used, threads));
    drop(c_on_fiber().build(|| ()).unwrap());
    assert_eq!(run(FIBERS.builder(), move || (stack(), downcall(stack))), (used, threads));
    let mut dropped = Box::pin(c_on_fiber().build(|| downcall(|| drop(enter(yield_now)))).unwrap());
    assert!(poll(&mut dropped).is_pending());
    drop(dropped);
    let inside = move || (stack(), downcall(stack));
    assert_eq!(entry().stack(StackChoice::Pooled).enter(inside).unwrap(), (used, threads));
}
