//! `Config::worker_start` and `worker_end`. A process has them once, so each case runs in its own
//! process.

mod common;

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use common::FIBERS;
use common::{child, part, stderr_of_success, time_limit};
use upcall::{blocking, config, shutdown, sleep};

static STARTED: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);

thread_local!(static HERE: Cell<usize> = const { Cell::new(0) });

fn starts() {
    STARTED.fetch_add(1, SeqCst);
    HERE.set(HERE.get() + 1);
}

fn ends() {
    assert_eq!(HERE.get(), 1, "the thread's own start came before, once");
    HERE.set(2);
    ENDED.fetch_add(1, SeqCst);
}

fn panics() {
    starts();
    panic!("a hook's");
}

/// A hook that spawns a fiber and waits for it.
fn spawns() {
    starts();
    if STARTED.load(SeqCst) == 1 {
        assert_eq!(FIBERS.spawn(|| HERE.get()).join().unwrap(), 1, "on another worker");
    }
}

fn counts() -> (usize, usize) {
    (STARTED.load(SeqCst), ENDED.load(SeqCst))
}

/// Forks. The hooks run in the child, too.
#[cfg(unix)]
fn forks() {
    // SAFETY: the child calls only upcall, which supports children of a fork, and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let before = counts();
        let again = FIBERS.spawn(|| HERE.get()).join().is_ok_and(|here| here == 1);
        let well = again
            && before.1 == 0
            && shutdown(Duration::from_secs(10)).is_ok()
            && counts() == (before.0 + 1, 1);
        // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
        unsafe { libc::_exit(i32::from(!well)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing, and `child` is an unreaped child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}

fn run(case: &str) {
    let start = match case {
        "panics" => panics,
        "spawns" => spawns,
        _ => starts,
    };
    config().workers(2).worker_start(start).worker_end(ends).install().unwrap();
    assert_eq!(FIBERS.spawn(|| HERE.get()).join().unwrap(), 1, "the hook runs before the first fiber");
    assert_eq!(blocking(|| HERE.get()), 1, "the hook runs before the first call");
    if case == "more" {
        // More workers than configured. The extra ones end after a second of idleness.
        let all: Vec<_> = (0..6)
            .map(|_| {
                FIBERS.spawn(|| {
                    thread::sleep(Duration::from_millis(100));
                    HERE.get()
                })
            })
            .collect();
        all.into_iter().for_each(|fiber| assert_eq!(fiber.join().unwrap(), 1));
        let (started, ended) = counts();
        assert!(started > 3 && ended == 0, "{started} {ended}");
        while counts().1 == 0 {
            thread::yield_now();
        }
    }
    #[cfg(unix)]
    if case == "forks" {
        forks();
    }
    FIBERS.spawn(|| sleep(Duration::from_millis(1))).join().unwrap();
    shutdown(Duration::from_secs(10)).unwrap();
    let (started, ended) = counts();
    assert!(started >= 2 && started == ended, "{started} hooks at the start, {ended} at the end");
}

#[test]
fn hooks() {
    if let Some(case) = part() {
        return run(&case);
    }
    let _limit = time_limit("hooks");
    let cases = ["plain", "panics", "spawns", "more"].into_iter().chain(cfg!(unix).then_some("forks"));
    for case in cases {
        let said = stderr_of_success(&child("hooks", case, &[]));
        assert_eq!(
            said.contains("upcall: the hook worker_start panicked"),
            case == "panics",
            "{case}: {said}"
        );
    }
}
