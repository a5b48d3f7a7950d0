//! libuv's loops, timers, thread pool and threads, with callbacks in Rust that wait.
//!
//! Usage: `uv-host CASE`, or `uv-host version`.

mod uv;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use upcall::{JoinHandle, LocalRuntime, enter, spawn, wait};

use uv::Loop;

/// What the messages of panics begin with that are to be caught.
const EXPECTED: &str = "as expected: ";

/// How Rust code calls libuv.
#[derive(Clone, Copy)]
enum Way {
    /// On C's stack: waits in callbacks block the thread.
    Downcall,
    /// On the fiber's stack: they suspend the fiber.
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

/// Fibers of the loop's thread wait for jobs of the pool, which wait for each other in pairs and for workers' fibers.
fn jobs() {
    const JOBS: i64 = 200;
    let uv = Rc::new(Loop::new());
    let runtime = Rc::new(LocalRuntime::new().unwrap());
    let left = Rc::new(Cell::new(JOBS));
    let pair = |n: i64| {
        let ((to_a, of_a), (to_b, of_b)) = (bounded(1), bounded(1));
        [(n, to_b, of_a), (n + 1, to_a, of_b)].map(|(n, to_other, from_other)| {
            let (uv, left) = (uv.clone(), left.clone());
            runtime.spawn_local(move || {
                let job = uv.work(move || {
                    wait(to_other.send(n)).unwrap();
                    let other: i64 = wait(from_other.recv()).unwrap();
                    wait(spawn(move || 1000 * n + other)).unwrap()
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

/// Threads and workers' fibers wake a loop, whose callback waits in the end until they have all ended.
fn wakes() {
    const EACH: usize = 10_000;
    let uv = Loop::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let (ends, ended) = bounded::<()>(1);
    let seen = sent.clone();
    let waker = Arc::new(uv.woken(move || {
        let seen = seen.clone();
        let all = wait(spawn(move || seen.load(Relaxed) == 4 * EACH)).unwrap();
        if all {
            assert!(wait(ended.recv()).is_err(), "nothing is sent there");
        }
        !all
    }));
    let send = move || {
        let _end = ends;
        for _ in 0..EACH {
            sent.fetch_add(1, Relaxed);
            // SAFETY: the function does not say no before this one has ended.
            enter(|| unsafe { waker.wake() }).unwrap();
        }
    };
    let fibers = [spawn(send.clone()), spawn(send.clone())];
    let threads = [thread::spawn(send.clone()), thread::spawn(send)];
    uv.run(Way::Downcall);
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Two loops run on fibers of one thread, and take turns in the middle of their timers' callbacks.
fn turns() {
    let runtime = LocalRuntime::new().unwrap();
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

/// Panics on the pool's threads go to who waits for the job; those in callbacks go on where the loop is run, which may be run again.
fn panics(way: Way) {
    let uv = Loop::new();
    let raised = || {
        let payload = catch_unwind(AssertUnwindSafe(|| uv.run(way))).unwrap_err();
        payload.downcast::<String>().unwrap().split_off(EXPECTED.len())
    };
    for _ in 0..50 {
        uv.every_millisecond(|| panic!("{EXPECTED}in a timer"));
        assert_eq!(raised(), "in a timer");

        let job = uv.work(|| panic!("{EXPECTED}{}", wait(spawn(|| "on the pool")).unwrap()));
        uv.run(way);
        let payload = job.try_recv().unwrap().unwrap_err();
        assert_eq!(*payload.downcast::<String>().unwrap(), format!("{EXPECTED}on the pool"));

        // From the pool to the loop's thread, and on there.
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
    spawn(|| panics(Way::OnFiber)).join().unwrap();
}

/// libuv's threads come and go, those of its pool with the pool: nothing of them stays.
fn threads_exit() {
    let attached = || {
        let names = upcall::snapshot().threads.into_iter().map(|thread| thread.name.unwrap_or_default());
        names.filter(|name| !name.starts_with("upcall-")).count()
    };
    let body = || assert_eq!(wait(spawn(|| 1)).unwrap(), 1);
    enter(body).unwrap();
    assert_eq!(attached(), 1);
    for _ in 0..50 {
        uv::threads(16, body);
    }
    assert_eq!(attached(), 1);
    let uv = Loop::new();
    let jobs: Vec<_> = (0..100).map(|n| uv.work(move || wait(spawn(move || n)).unwrap())).collect();
    uv.run(Way::Downcall);
    assert!(jobs.iter().zip(0..).all(|(job, n)| job.try_recv().unwrap().unwrap() == n));
    assert!(attached() > 1, "the pool's threads are attached");
    drop(uv);
    uv::shut_down();
    assert_eq!(attached(), 1);
}

fn main() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().downcast_ref::<String>().is_some_and(|message| message.starts_with(EXPECTED)) {
            report(panic);
        }
    }));
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
