//! Wakes between threads on one core. Each case runs in its own process.
#![cfg(target_os = "linux")]

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::FIBERS;
use common::{child, part, stderr_of_success, time_limit};
use upcall::{shutdown, wait};

/// Moves this thread, and the threads it starts later, to one core.
fn share_core() {
    // SAFETY: a `cpu_set_t` is made of integers; the calls read and write one set of the size
    // passed.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&cores), &mut cores), 0);
        let first = (0..libc::CPU_SETSIZE as usize).find(|&core| libc::CPU_ISSET(core, &cores)).unwrap();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(first, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &one), 0);
    }
}

/// The number of times the process's threads went to sleep.
fn sleeps() -> libc::c_long {
    // SAFETY: a `rusage` is made of integers, and the call writes it.
    unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut used), 0);
        used.ru_nvcsw
    }
}

/// Measures round trips through a channel that wakes while it holds its lock.
fn round_trips() {
    const TRIPS: i64 = 2000;
    let (sender, arrives) = async_channel::bounded(1);
    let (back, returns) = async_channel::bounded(1);
    drop(FIBERS.spawn(move || {
        while let Ok(number) = wait(arrives.recv()) {
            wait(back.send(number)).unwrap();
        }
    }));
    let mut before = 0;
    for trip in -100..TRIPS {
        if trip == 0 {
            before = sleeps();
        }
        wait(sender.send(trip)).unwrap();
        assert_eq!(wait(returns.recv()).unwrap(), trip);
    }
    let each = (sleeps() - before) as f64 / TRIPS as f64;
    // Each thread sleeps once. If it is woken while the lock is held, it sleeps twice.
    assert!(each < 3.0, "{each} sleeps a round trip");
}

/// Polls that wake another thread or fiber, and then block until its answer arrives.
fn poll_blocks(with_fiber: bool) {
    let (sender, arrives) = async_channel::bounded(1);
    let (back, returns) = mpsc::channel();
    let (begins, begun) = mpsc::channel();
    let answer = move || {
        begins.send(()).unwrap();
        while let Ok(number) = wait(arrives.recv()) {
            back.send(number).unwrap();
        }
    };
    let ask = move || {
        begun.recv().unwrap();
        for number in 0..20 {
            let asked = Instant::now();
            let answer = wait(async {
                sender.send(number).await.unwrap();
                returns.recv_timeout(Duration::from_secs(10))
            });
            assert_eq!(answer.expect("an answer, since the wake is made meanwhile"), number);
            assert!(asked.elapsed() < Duration::from_secs(1));
            // The answering side falls asleep again.
            thread::sleep(Duration::from_millis(2));
        }
    };
    // The first fiber starts the watcher's thread.
    FIBERS.spawn(|| ()).join().unwrap();
    if with_fiber {
        let other = thread::spawn(answer);
        FIBERS.spawn(ask).join().unwrap();
        other.join().unwrap();
    } else {
        drop(FIBERS.spawn(answer));
        ask();
    }
}

/// The answer of a waiting thread. The poll that wakes it then blocks for the answer.
fn answer_of_a_thread_that_waits() -> Result<i32, mpsc::RecvTimeoutError> {
    let (sender, arrives) = async_channel::bounded(1);
    let (back, returns) = mpsc::channel();
    thread::spawn(move || back.send(wait(arrives.recv()).unwrap()).unwrap());
    thread::sleep(Duration::from_millis(20));
    wait(async {
        sender.send(42).await.unwrap();
        returns.recv_timeout(Duration::from_secs(10))
    })
}

fn run(case: &str) {
    share_core();
    match case {
        "round trips" => round_trips(),
        "fiber" => poll_blocks(true),
        "thread" => poll_blocks(false),
        // After `shutdown`, no watcher is there to make a deferred wake.
        "no watcher" => {
            FIBERS.spawn(|| ()).join().unwrap();
            shutdown(Duration::from_secs(10)).unwrap();
            assert_eq!(answer_of_a_thread_that_waits(), Ok(42));
        }
        // The child of a fork has no watcher either, until a fiber is spawned.
        _ => {
            FIBERS.spawn(|| ()).join().unwrap();
            // SAFETY: the child uses only upcall and threads, and ends by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
                unsafe { libc::_exit(i32::from(answer_of_a_thread_that_waits() != Ok(42))) };
            }
            let mut status = 0;
            // SAFETY: `status` is valid for writing, and `child` is an unreaped child of this
            // process.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}

#[test]
fn one_core() {
    if let Some(case) = part() {
        return run(&case);
    }
    let _limit = time_limit("one_core");
    for case in ["round trips", "fiber", "thread", "no watcher", "fork"] {
        stderr_of_success(&child("one_core", case, &[]));
    }
}
