//! libuv's loops, timers, thread pool and threads, with waiting callbacks in Rust.
//!
//! Usage: `uv-host CASE`, or `uv-host version`.

#[path = "../../expected.rs"]
mod expected;
mod uv;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use upcall::{JoinHandle, enter, wait};

use expected::EXPECTED;
use uv::Loop;

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// A way for Rust code to call libuv.
#[derive(Clone, Copy)]
enum Way {
    /// Calls on C's stack: waits in callbacks block the thread.
    Downcall,
    /// Calls on the fiber's stack: waits in callbacks suspend the fiber.
    OnFiber,
}

impl Way {
    fn call<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Self::Downcall => upcall::downcall(f),
            Self::OnFiber => upcall::downcall_on_fiber(f),
        }
    }
}

/// Fibers of the loop's thread wait for jobs of the pool.
///
/// The jobs wait in pairs for each other, and for workers' fibers.
fn jobs() {
    const JOBS: i64 = 200;
    let uv = Rc::new(Loop::new());
    let runtime = Rc::new(FIBERS.local_runtime().unwrap());
    let left = Rc::new(Cell::new(JOBS));
    let pair = |n: i64| {
        let ((to_a, of_a), (to_b, of_b)) = (bounded(1), bounded(1));
        [(n, to_b, of_a), (n + 1, to_a, of_b)].map(|(n, to_other, from_other)| {
            let (uv, left) = (uv.clone(), left.clone());
            runtime.spawn_local(move || {
                let job = uv.work(move || {
                    wait(to_other.send(n)).unwrap();
                    let other: i64 = wait(from_other.recv()).unwrap();
                    wait(FIBERS.spawn(move || 1000 * n + other)).unwrap()
                });
                let result = wait(job.recv()).unwrap().unwrap();
                left.set(left.get() - 1);
                result
            })
        })
    };
    let fibers: Vec<JoinHandle<i64>> = (0..JOBS).step_by(2).flat_map(pair).collect();
    let ended = left.clone();
    uv.drive(&runtime, move || ended.get() == 0);
    uv.run(Way::Downcall);
    for (n, fiber) in (0..).zip(fibers) {
        assert_eq!(fiber.join().unwrap(), 1000 * n + (n ^ 1));
    }
}

/// Threads and workers' fibers wake a loop. The loop's last callback waits for the ends of them
/// all.
fn wakes() {
    const EACH: usize = 10_000;
    let uv = Loop::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let (ends, ended) = bounded::<()>(1);
    let seen = sent.clone();
    let waker = Arc::new(uv.woken(move || {
        let seen = seen.clone();
        let all = wait(FIBERS.spawn(move || seen.load(Relaxed) == 4 * EACH)).unwrap();
        if all {
            assert!(wait(ended.recv()).is_err(), "nothing is sent there");
        }
        !all
    }));
    let send = move || {
        let _end = ends;
        for _ in 0..EACH {
            sent.fetch_add(1, Relaxed);
            // SAFETY: the callback returns false only after the end of all these fibers and
            // threads, so the handle is open.
            enter(|| unsafe { waker.wake() }).unwrap();
        }
    };
    let fibers = [FIBERS.spawn(send.clone()), FIBERS.spawn(send.clone())];
    let threads = [thread::spawn(send.clone()), thread::spawn(send)];
    uv.run(Way::Downcall);
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Two loops run in fibers of one thread, and take turns inside their timers' callbacks.
fn turns() {
    let runtime = FIBERS.local_runtime().unwrap();
    let ((to_a, of_a), (to_b, of_b)) = (bounded(1), bounded(1));
    let fiber = |to_other: Sender<i32>, from_other: Receiver<i32>| {
        runtime.spawn_local(move || {
            let uv = Loop::new();
            let mut turn = 0;
            uv.every_millisecond(move || {
                wait(to_other.send(turn)).unwrap();
                assert_eq!(wait(from_other.recv()), Ok(turn));
                turn += 1;
                turn < 50
            });
            uv.run(Way::OnFiber);
        })
    };
    let fibers = [fiber(to_b, of_a), fiber(to_a, of_b)];
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

/// A panic on the pool's thread goes to the code that waits for the job.
///
/// A panic in a callback continues at the call that runs the loop. The loop may be run again.
fn panics(way: Way) {
    let uv = Loop::new();
    let raised = || {
        let payload = catch_unwind(AssertUnwindSafe(|| uv.run(way))).unwrap_err();
        payload.downcast::<String>().unwrap().split_off(EXPECTED.len())
    };
    for _ in 0..50 {
        uv.every_millisecond(|| panic!("{EXPECTED}in a timer"));
        assert_eq!(raised(), "in a timer");

        let job = uv.work(|| panic!("{EXPECTED}{}", wait(FIBERS.spawn(|| "on the pool")).unwrap()));
        uv.run(way);
        let payload = job.try_recv().unwrap().unwrap_err();
        assert_eq!(*payload.downcast::<String>().unwrap(), format!("{EXPECTED}on the pool"));

        // The panic goes from the pool to the loop's thread, and continues there.
        let job = uv.work(|| panic!("{EXPECTED}all the way"));
        uv.every_millisecond(move || {
            job.try_recv().map_or(true, |result| resume_unwind(result.unwrap_err()))
        });
        assert_eq!(raised(), "all the way");
    }
}

fn panics_everywhere() {
    panics(Way::Downcall);
    enter(|| panics(Way::Downcall)).unwrap();
    FIBERS.spawn(|| panics(Way::OnFiber)).join().unwrap();
}

/// libuv's threads come and go, and so do those of its pool. Afterwards none of them is attached.
fn threads_exit() {
    let attached = || {
        let names = upcall::snapshot().threads.into_iter().map(|thread| thread.name.unwrap_or_default());
        names.filter(|name| !name.starts_with("upcall-")).count()
    };
    let body = || assert_eq!(wait(FIBERS.spawn(|| 1)).unwrap(), 1);
    enter(body).unwrap();
    assert_eq!(attached(), 1);
    for _ in 0..50 {
        uv::threads(16, body);
    }
    assert_eq!(attached(), 1);
    let uv = Loop::new();
    let jobs: Vec<_> = (0..100).map(|n| uv.work(move || wait(FIBERS.spawn(move || n)).unwrap())).collect();
    uv.run(Way::Downcall);
    assert!(jobs.iter().zip(0..).all(|(job, n)| job.try_recv().unwrap().unwrap() == n));
    assert!(attached() > 1, "the pool's threads are attached");
    drop(uv);
    uv::shut_down();
    assert_eq!(attached(), 1);
}

fn main() {
    expected::hide();
    let case = std::env::args().nth(1).unwrap_or_default();
    match &*case {
        "version" => println!("{}", uv::version()),
        "jobs" => jobs(),
        "wakes" => wakes(),
        "turns" => turns(),
        "panics" => panics_everywhere(),
        "threads_exit" => threads_exit(),
        _ => panic!("there is no case {case}"),
    }
}
