//! Waits that suspend the coroutines of a host in Rust, made with corosensei.

mod common;
#[path = "common/corosenseis.rs"]
mod corosenseis;
#[path = "common/memory.rs"]
mod memory;

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use common::{FIBERS, child, message, part, stderr_of_success, time_limit};
use corosenseis::*;
use upcall::coroutines::{self, AlreadyInstalled, Coroutine, Host, Resumed};
use upcall::{Interrupted, downcall, enter, sleep, wait, wait_interruptible};

const A_WHILE: Duration = Duration::from_millis(10);

/// Runs each of `all` on a coroutine, `TIMES` times at one time, as an upcall; asserts that they
/// waited together.
fn together(all: &'static [(&'static str, fn())]) {
    const TIMES: usize = 5;
    let ended = Rc::new(Cell::new(0));
    for (_, f) in all.iter().cycle().take(TIMES * all.len()) {
        let ended = ended.clone();
        go(move || {
            enter(f).unwrap();
            ended.set(ended.get() + 1);
        });
    }
    run_all();
    assert_eq!(ended.get(), TIMES * all.len());
    assert_eq!(MOST.get(), TIMES * all.len(), "each waits once at least, before any goes on");
}

/// Every way to wait.
const WAYS: &[(&str, fn())] = &[
    ("sleep", || sleep(A_WHILE)),
    ("join", || {
        assert_eq!(
            FIBERS
                .spawn(|| {
                    sleep(A_WHILE);
                    7
                })
                .join()
                .unwrap(),
            7
        )
    }),
    ("blocking", || {
        assert_eq!(
            upcall::blocking(|| {
                thread::sleep(A_WHILE);
                8
            }),
            8
        )
    }),
    ("timeout", || assert!(upcall::timeout(A_WHILE, std::future::pending::<()>()).is_err())),
    ("scope", || {
        let (mut one, mut other) = (0, 0);
        FIBERS.scope(|scope| {
            scope.spawn(|| {
                sleep(A_WHILE);
                one = 1
            });
            scope.spawn(|| {
                sleep(A_WHILE);
                other = 2
            });
        });
        assert_eq!((one, other), (1, 2));
    }),
    ("select", || {
        let first = futures_lite::future::or(upcall::timer(A_WHILE), std::future::pending());
        wait(first);
    }),
    ("inside another wait", || {
        wait(async {
            downcall(|| enter(|| sleep(A_WHILE)).unwrap());
            upcall::timer(A_WHILE).await;
        });
    }),
    ("inside a fiber's executor", || {
        let fiber = FIBERS.fiber(|| {
            sleep(A_WHILE);
            downcall(|| enter(|| sleep(A_WHILE)).unwrap());
            9
        });
        assert_eq!(wait(fiber), 9);
    }),
    ("interruptible", || {
        assert_eq!(
            wait_interruptible(async {
                upcall::timer(A_WHILE).await;
                1
            }),
            Ok(1)
        )
    }),
    ("with more stack", || upcall::with_stack(1 << 20, || sleep(A_WHILE))),
];

#[test]
fn every_way_to_wait_suspends() {
    hosted("every_way_to_wait_suspends", || together(WAYS));
}

/// Runs `f` on a coroutine, killed in its first wait.
fn killed<T: 'static>(f: impl FnOnce() -> T + 'static) -> T {
    let result = Rc::new(Cell::new(None));
    let to = result.clone();
    let task = go(move || to.set(Some(f())));
    run(QUEUE.with_borrow_mut(VecDeque::pop_back).unwrap());
    kill(&task);
    result.take().expect("it has ended")
}

#[test]
fn a_killed_coroutine_unwinds() {
    hosted("a_killed_coroutine_unwinds", || {
        let dropped = Rc::new(Cell::new(0));
        struct AtDrop(Rc<Cell<i32>>);
        impl Drop for AtDrop {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let guard = AtDrop(dropped.clone());
        let error = killed(move || {
            let inside = AtDrop(guard.0.clone());
            enter(move || {
                let _guards = (guard, &inside);
                wait(std::future::pending::<()>());
            })
            .unwrap_err()
        });
        assert_eq!(error.message(), "the host ended the coroutine while it waited");
        assert!(error.into_payload().is_some_and(|payload| payload.is::<coroutines::Killed>()));
        assert_eq!(dropped.get(), 2);
        // It may go on, and its next waits end as well, unless they are ready.
        let again = killed(|| {
            let first = wait_interruptible(std::future::pending::<()>());
            let ready = wait_interruptible(std::future::ready(5));
            (first, ready, wait_interruptible(upcall::timer(Duration::from_secs(60))))
        });
        assert_eq!(again, (Err(Interrupted), Ok(5), Err(Interrupted)));
    });
}

#[test]
fn a_scope_of_a_killed_coroutine_ends_first() {
    hosted("a_scope_of_a_killed_coroutine_ends_first", || {
        let ended = killed(|| {
            let counter = AtomicUsize::new(0);
            FIBERS.scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        sleep(A_WHILE);
                        counter.fetch_add(1, Relaxed);
                    });
                }
            });
            counter.load(Relaxed)
        });
        assert_eq!(ended, 4);
    });
}

#[test]
fn a_panic_leaves_a_suspended_wait() {
    hosted("a_panic_leaves_a_suspended_wait", || {
        go(|| {
            let wait_and_panic = || {
                wait(async {
                    upcall::timer(A_WHILE).await;
                    panic!("in the future");
                })
            };
            let payload = enter(wait_and_panic).unwrap_err().into_payload().unwrap();
            assert_eq!(message(payload), "in the future");
            // Through a downcall.
            let raised = catch_unwind(|| downcall(|| enter(wait_and_panic).map_or(-1, |()| 0)));
            assert_eq!(message(raised.unwrap_err()), "in the future");
            assert_eq!(
                enter(|| {
                    sleep(A_WHILE);
                    3
                })
                .unwrap(),
                3
            );
        });
    });
}

#[test]
fn an_initialiser_blocks() {
    static CELL: LazyLock<i32> = LazyLock::new(|| {
        sleep(A_WHILE);
        42
    });
    hosted("an_initialiser_blocks", || {
        for _ in 0..5 {
            // Suspended inside, the second coroutine would block the thread in the standard
            // library, for ever.
            go(|| assert_eq!(enter(|| *CELL).unwrap(), 42));
        }
    });
}

#[test]
fn a_destructor_in_a_panic_blocks() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(A_WHILE);
            assert!(thread::panicking());
        }
    }
    hosted("a_destructor_in_a_panic_blocks", || {
        for _ in 0..3 {
            go(|| {
                let panics = || {
                    let _sleeps = Sleeps;
                    panic!("with a wait in the unwinding");
                };
                assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
                assert!(!thread::panicking());
            });
        }
    });
}

/// The others run after each poll, as on an executor.
#[test]
fn a_wait_woken_by_itself_lets_others_run() {
    hosted("a_wait_woken_by_itself_lets_others_run", || {
        let set = Rc::new(Cell::new(false));
        let (seen, sets) = (set.clone(), set);
        go(move || {
            let until_set = async {
                while !seen.get() {
                    futures_lite::future::yield_now().await;
                }
            };
            wait(until_set);
        });
        go(move || sets.set(true));
    });
}

/// A host without the function `resume`.
struct NoResume;

// SAFETY: as for `Corosenseis`.
unsafe impl Host for NoResume {
    fn current(&self) -> Option<Coroutine> {
        Corosenseis.current()
    }

    fn suspend(&self, coroutine: Coroutine) -> Resumed {
        Corosenseis.suspend(coroutine)
    }
}

#[test]
fn a_coroutine_not_resumed_is_named_again() {
    let _limit = time_limit("a_coroutine_not_resumed_is_named_again");
    thread::spawn(|| {
        coroutines::install_on_thread(FIBERS, &NoResume).unwrap();
        let (sender, receiver) = async_channel::bounded(1);
        go(move || assert_eq!(wait(receiver.recv()), Ok(1)));
        run(QUEUE.with_borrow_mut(VecDeque::pop_front).unwrap());
        sender.try_send(1).unwrap();
        for _ in 0..2 {
            let panic = catch_unwind(|| coroutines::run_ready(1)).unwrap_err();
            assert!(message(panic).contains("use next_ready"));
        }
        Corosenseis.resume(coroutines::next_ready().expect("it can go on"));
        assert!(SUSPENDED.with_borrow(Vec::is_empty) && coroutines::next_ready().is_none());
    })
    .join()
    .unwrap();
}

#[test]
fn outside_coroutines_waits_block() {
    hosted("outside_coroutines_waits_block", || {
        let before = Instant::now();
        sleep(A_WHILE);
        assert!(before.elapsed() >= A_WHILE && coroutines::next_ready().is_none());
    });
}

#[test]
fn one_host_a_thread() {
    hosted("one_host_a_thread", || {
        assert_eq!(coroutines::install_on_thread(FIBERS, &Corosenseis), Err(AlreadyInstalled));
        assert!(coroutines::uninstall_on_thread() && !coroutines::uninstall_on_thread());
        coroutines::install_on_thread(FIBERS, &Corosenseis).unwrap();
        assert!(AlreadyInstalled.to_string().contains("uninstall"));
    });
}

/// A host with a wait in its own `current`. It names no coroutine.
struct Asks;

// SAFETY: it never suspends.
unsafe impl Host for Asks {
    fn current(&self) -> Option<Coroutine> {
        enter(|| sleep(Duration::from_millis(1))).unwrap();
        None
    }

    fn suspend(&self, _: Coroutine) -> Resumed {
        unreachable!("current names none")
    }
}

#[test]
fn a_wait_inside_current_blocks() {
    let _limit = time_limit("a_wait_inside_current_blocks");
    thread::spawn(|| {
        coroutines::install_on_thread(FIBERS, &Asks).unwrap();
        for _ in 0..3 {
            sleep(A_WHILE);
        }
    })
    .join()
    .unwrap();
}

/// A host with copies of the thread's stack, as it says.
struct Copies;

// SAFETY: it never suspends.
unsafe impl Host for Copies {
    fn current(&self) -> Option<Coroutine> {
        panic!("a wait on a stack that moves asks for no coroutine")
    }

    fn suspend(&self, _: Coroutine) -> Resumed {
        unreachable!("current names none")
    }

    fn moves_stacks(&self) -> bool {
        true
    }
}

#[test]
fn with_moving_stacks_upcalls_run_on_pooled_ones() {
    let _limit = time_limit("with_moving_stacks_upcalls_run_on_pooled_ones");
    let is_own = || {
        let own = stackbounds::current();
        enter(|| own.contains(stackbounds::stack_pointer())).unwrap()
    };
    thread::spawn(move || {
        assert!(is_own());
        coroutines::install_on_thread(FIBERS, &Copies).unwrap();
        for _ in 0..100 {
            assert!(!is_own());
        }
        // Not in an upcall: on the thread's own stack, so it blocks.
        sleep(A_WHILE);
        let in_place = upcall::entry().stack(upcall::StackChoice::Caller);
        in_place.enter(|| sleep(A_WHILE)).unwrap();
    })
    .join()
    .unwrap();
    thread::spawn(move || assert!(is_own())).join().unwrap();
}

#[test]
fn a_snapshot_shows_suspended_coroutines() {
    hosted("a_snapshot_shows_suspended_coroutines", || {
        let (sender, receiver) = async_channel::bounded::<u8>(1);
        let task = go(move || assert_eq!(enter(|| wait(receiver.recv())).unwrap(), Ok(1)));
        run(QUEUE.with_borrow_mut(VecDeque::pop_front).unwrap());
        let seen = || {
            let snapshot = upcall::snapshot();
            let mut thread = snapshot.threads.iter().find(|thread| thread.current).unwrap().clone();
            (thread.coroutines.pop().unwrap(), snapshot.to_string())
        };
        thread::sleep(A_WHILE);
        let (coroutine, text) = seen();
        assert_eq!(coroutine.coroutine, Rc::as_ptr(&task) as usize);
        assert!(coroutine.waits.future.contains("Recv") && coroutine.waits.file == file!());
        assert!(coroutine.since >= A_WHILE && coroutine.since < Duration::from_secs(30));
        assert!(!coroutine.is_ready && text.contains("of the host, suspended for "), "{text}");
        sender.try_send(1).unwrap();
        let (coroutine, text) = seen();
        assert!(coroutine.is_ready && text.contains("can go on: the host has not resumed it"), "{text}");
        run_all();
        assert!(upcall::snapshot().threads.iter().all(|thread| thread.coroutines.is_empty()));
    });
}

#[test]
fn a_neglected_coroutine_is_reported() {
    const NAME: &str = "a_neglected_coroutine_is_reported";
    if part().is_none() {
        let told =
            |milliseconds| stderr_of_success(&child(NAME, "run", &[("UPCALL_WAIT_WARNING", milliseconds)]));
        let text = told("50");
        assert_eq!(text.matches("of the host can go on, and has not been resumed for").count(), 1, "{text}");
        assert!(text.contains(file!()) && text.contains("coroutines_next_ready"), "{text}");
        assert!(!told("0").contains("has not been resumed"));
        return;
    }
    hosted(NAME, || {
        let begin = |wait: fn()| {
            go(move || enter(wait).unwrap());
            run(QUEUE.with_borrow_mut(VecDeque::pop_front).unwrap());
        };
        begin(|| sleep(Duration::from_millis(1)));
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(100));
            begin(|| sleep(Duration::from_millis(1)));
        }
    });
}

#[test]
fn threads_end_with_suspended_coroutines() {
    let _limit = time_limit("threads_end_with_suspended_coroutines");
    let (sender, receiver) = async_channel::unbounded::<u8>();
    for _ in 0..20 {
        let receiver = receiver.clone();
        thread::spawn(move || {
            coroutines::install_on_thread(FIBERS, &Corosenseis).unwrap();
            for _ in 0..3 {
                let receiver = receiver.clone();
                let task = go(move || assert_eq!(enter(|| wait(receiver.recv())).unwrap(), Ok(1)));
                run(QUEUE.with_borrow_mut(VecDeque::pop_front).unwrap());
                // Its stack stays, for its frames are live.
                std::mem::forget(task);
            }
            std::mem::forget(SUSPENDED.take());
        })
        .join()
        .unwrap();
        // Wakes one of the dead.
        sender.try_send(1).unwrap();
    }
    hosted("threads_end_with_suspended_coroutines, afterwards", || together(&WAYS[..1]));
}
