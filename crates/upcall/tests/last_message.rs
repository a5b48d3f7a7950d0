//! The last message: of the running fiber, or else of the thread.

mod common;

use common::{FIBERS, last_panic, poll};
use upcall::{
    Builder, StackChoice, downcall, downcall_on_fiber, downcall_on_system_stack, enter, entry,
    set_last_message, wait, with_stack, yield_now,
};

/// Fails as an exported function does, for C that called it.
fn fails(message: &'static str) {
    drop(enter(|| panic!("{message}")).unwrap_err().into_payload());
}

fn fiber(f: impl FnOnce() + 'static) -> std::pin::Pin<Box<upcall::Fiber<()>>> {
    Box::pin(c_on_fiber().build(f).unwrap())
}

fn c_on_fiber() -> Builder {
    FIBERS.builder().c_on_fiber()
}

#[test]
fn c_finds_its_message_after_others_failed_while_it_waited() {
    let waits = |message: &'static str| {
        fiber(move || {
            downcall(|| {
                assert_eq!(last_panic(), "");
                fails(message);
                enter(yield_now).unwrap();
                assert_eq!(last_panic(), message);
                enter(yield_now).unwrap();
                assert_eq!(last_panic(), message);
            });
        })
    };
    fails("the thread's");
    let (mut one, mut two) = (waits("one's"), waits("two's"));
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    assert_eq!(last_panic(), "the thread's");
    fails("the thread's second");
    assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
    assert!(poll(&mut two).is_ready() && poll(&mut one).is_ready());
    assert_eq!(last_panic(), "the thread's second");
}

/// C on the thread's stack cannot be suspended, so it has the thread's message.
#[test]
fn c_on_the_system_stack_has_the_threads() {
    fails("the thread's");
    wait(
        c_on_fiber()
            .build(|| {
                downcall(|| fails("the fiber's"));
                downcall_on_system_stack(|| {
                    assert_eq!(last_panic(), "the thread's");
                    fails("the thread's second");
                    assert_eq!(last_panic(), "the thread's second");
                });
                downcall(|| assert_eq!(last_panic(), "the fiber's"));
            })
            .unwrap(),
    );
    assert_eq!(last_panic(), "the thread's second");
}

#[test]
fn all_stacks_of_a_fiber_have_one_message() {
    wait(
        c_on_fiber()
            .build(|| {
                downcall(|| {
                    let pooled = || {
                        set_last_message("pooled");
                        downcall(|| assert_eq!(last_panic(), "pooled"));
                        with_stack(4 << 20, || set_last_message("beyond"));
                    };
                    entry().stack(StackChoice::Pooled).enter(pooled).unwrap();
                    assert_eq!(last_panic(), "beyond");
                    entry().stack(StackChoice::Pooled).keep_panic().enter(|| panic!("failed")).unwrap_or(());
                    assert_eq!(last_panic(), "failed");
                    let refused = entry().min_stack(usize::MAX).enter(|| ()).unwrap_err();
                    assert_eq!(last_panic(), refused.message());
                });
            })
            .unwrap(),
    );
}

#[test]
fn a_pooled_upcall_outside_fibers_has_the_threads() {
    entry().stack(StackChoice::Pooled).enter(|| set_last_message("from the pool")).unwrap();
    assert_eq!(last_panic(), "from the pool");
    wait(FIBERS.builder().build(|| downcall_on_fiber(|| assert_eq!(last_panic(), ""))).unwrap());
    assert_eq!(last_panic(), "from the pool");
}

#[test]
fn a_new_fiber_on_a_used_stack_has_none() {
    for _ in 0..2 {
        let has_none = || {
            downcall(|| {
                assert_eq!(last_panic(), "");
                fails("left behind");
            });
        };
        wait(c_on_fiber().build(has_none).unwrap());
    }
}

#[test]
fn setting_it_attaches_the_thread() {
    std::thread::spawn(|| {
        assert_eq!(last_panic(), "");
        set_last_message(format_args!("{} of {}", 1, 2));
        assert_eq!(last_panic(), "1 of 2");
        upcall::detach().unwrap();
        assert_eq!(last_panic(), "");
    })
    .join()
    .unwrap();
}

#[test]
fn a_message_that_panics_changes_nothing() {
    struct Bomb;
    impl std::fmt::Display for Bomb {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("a bomb")
        }
    }
    set_last_message("before");
    assert!(std::panic::catch_unwind(|| set_last_message(Bomb)).is_err());
    assert_eq!(last_panic(), "before");
}
