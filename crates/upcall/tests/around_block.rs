//! The host's hooks around each sleep of one of its threads. Each case runs in its own process.

mod common;

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Condvar, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{AtDrop, FIBERS, child, part, stderr_of_success, time_limit};
use upcall::{downcall, enter, timer, wait};

const NAP: Duration = Duration::from_millis(30);
const FOR_EVER: Duration = Duration::from_secs(3600);

thread_local! {
    /// The tokens of this thread's unfinished sleeps, the innermost last; and the number of the
    /// last token.
    static SLEEPS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn before() -> *mut c_void {
    let token = COUNT.get() + 1;
    COUNT.set(token);
    SLEEPS.with_borrow_mut(|sleeps| sleeps.push(token));
    token as *mut c_void
}

fn after(token: *mut c_void) {
    let innermost = SLEEPS.with_borrow_mut(|sleeps| sleeps.pop());
    assert_eq!(innermost, Some(token as usize), "a pair is not nested");
}

/// Asserts that the thread is outside each pair of hooks, as code of an upcall must be.
fn awake() {
    assert_eq!(SLEEPS.with_borrow(|sleeps| sleeps.len()), 0);
}

fn interrupts() -> bool {
    awake();
    INTERRUPTS.swap(false, SeqCst)
}
static INTERRUPTS: AtomicBool = AtomicBool::new(false);

fn with_hooks(test: &'static str) -> bool {
    if part().is_none() {
        stderr_of_success(&child(test, "run", &[]));
        return false;
    }
    upcall::config().around_block(before, after).interrupted(interrupts).install().unwrap();
    true
}

#[test]
fn each_sleep_is_between_a_pair_and_code_is_not() {
    const NAME: &str = "each_sleep_is_between_a_pair_and_code_is_not";
    if !with_hooks(NAME) {
        return;
    }
    let _limit = time_limit(NAME);
    enter(|| wait(async {})).unwrap();
    assert_eq!(COUNT.get(), 0, "nothing slept");
    // On a busy machine, the timer may fire before the thread has begun to sleep.
    while COUNT.get() == 0 {
        enter(|| {
            wait(async {
                timer(NAP).await;
                awake();
            });
            awake();
        })
        .unwrap();
    }
    // On a pooled stack, and in C below it.
    let pooled = upcall::entry().stack(upcall::StackChoice::Pooled);
    pooled.enter(|| downcall(|| enter(|| wait(timer(NAP))).unwrap())).unwrap();
    awake();
}

#[test]
fn waits_inside_waits_and_fibers_between_are_no_exception() {
    const NAME: &str = "waits_inside_waits_and_fibers_between_are_no_exception";
    if !with_hooks(NAME) {
        return;
    }
    let _limit = time_limit(NAME);
    let runtime = FIBERS.local_runtime().unwrap();
    // While this thread waits, it runs fibers. Each calls C, and C's upcall waits in turn.
    for n in 0..8 {
        drop(runtime.spawn_local(move || {
            awake();
            wait(timer(NAP / 2));
            awake();
            let nap = NAP / (n + 1);
            downcall(|| enter(|| wait(timer(nap)))).unwrap();
            awake();
        }));
    }
    enter(|| wait(timer(10 * NAP))).unwrap();
    awake();
    // A wait inside the poll of another.
    wait(poll_fn(|_| {
        wait(timer(NAP));
        awake();
        Poll::Ready(())
    }));
    FIBERS.scope(|scope| _ = scope.spawn(|| wait(timer(NAP))));
    awake();
    upcall::blocking(|| thread::sleep(NAP));
    awake();
    assert!(COUNT.get() > 3);
}

#[test]
fn however_a_wait_ends_the_pair_is_whole() {
    const NAME: &str = "however_a_wait_ends_the_pair_is_whole";
    if !with_hooks(NAME) {
        return;
    }
    let _limit = time_limit(NAME);
    std::panic::set_hook(Box::new(|_| ()));
    let panics = async {
        timer(NAP).await;
        panic!("after its sleep");
    };
    assert_eq!(enter(|| wait(panics)).map(|never: ()| never).unwrap_err().message(), "after its sleep");
    awake();
    INTERRUPTS.store(true, SeqCst);
    assert!(enter(|| wait(timer(FOR_EVER))).is_err());
    awake();
    // A wait in a destructor, while the thread panics.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _waits = AtDrop(|| wait(timer(NAP)));
        panic!();
    }));
    assert!(panicked.is_err());
    awake();
    let mut fiber = Box::pin(FIBERS.fiber(|| {
        let _waits = AtDrop(|| wait(timer(NAP)));
        wait(timer(FOR_EVER));
    }));
    assert!(common::poll(&mut fiber).is_pending());
    let before = COUNT.get();
    drop(fiber);
    awake();
    assert!(COUNT.get() > before);
}

#[cfg(unix)]
#[test]
fn in_the_child_of_a_fork_too() {
    const NAME: &str = "in_the_child_of_a_fork_too";
    if !with_hooks(NAME) {
        return;
    }
    let _limit = time_limit(NAME);
    let forks = || {
        // SAFETY: the child calls only upcall, which supports children of a fork, and `_exit`.
        let child = unsafe { libc::fork() };
        let before = COUNT.get();
        enter(|| wait(timer(NAP))).unwrap();
        awake();
        assert!(COUNT.get() > before);
        if child == 0 {
            // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writing, and `child` is an unreaped child of this process.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
    };
    // Forks while another thread sleeps, and in the middle of a wait.
    thread::spawn(|| wait(timer(FOR_EVER)));
    forks();
    wait(poll_fn(|_| {
        forks();
        Poll::Ready(())
    }));
    awake();
}

/// A lock like Python's: the running thread holds it.
static GIL: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn take() {
    let mut held = GIL.1.wait_while(GIL.0.lock().unwrap(), |held| *held).unwrap();
    *held = true;
}

fn release() {
    *GIL.0.lock().unwrap() = false;
    GIL.1.notify_one();
}

#[test]
fn threads_that_hold_one_lock_wait_for_each_other() {
    const NAME: &str = "threads_that_hold_one_lock_wait_for_each_other";
    if part().is_none() {
        stderr_of_success(&child(NAME, "run", &[]));
        return;
    }
    let _limit = time_limit(NAME);
    fn released() -> *mut c_void {
        release();
        std::ptr::null_mut()
    }
    fn taken(_: *mut c_void) {
        take();
    }
    upcall::config().around_block(released, taken).install().unwrap();
    let (to_second, at_second) = async_channel::bounded(1);
    let (to_first, at_first) = async_channel::bounded(1);
    let second = thread::spawn(move || {
        take();
        for _ in 0..1000 {
            let n: u32 = enter(|| wait(at_second.recv())).unwrap().unwrap();
            enter(|| wait(to_first.send(n + 1))).unwrap().unwrap();
        }
        release();
    });
    take();
    let mut n = 0;
    for _ in 0..1000 {
        enter(|| wait(to_second.send(n))).unwrap().unwrap();
        n = enter(|| wait(at_first.recv())).unwrap().unwrap();
    }
    release();
    second.join().unwrap();
    assert_eq!(n, 1000);
}
