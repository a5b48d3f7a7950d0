//! Spawned fibers begin on an idle worker, before a busy worker's own fibers would have to wait.
//!
//! Each case runs in its own process, with two workers.

mod common;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::FIBERS;
use common::{child, part, stderr_of_success, time_limit};
use upcall::{JoinHandle, blocking, config, downcall, enter, sleep, wait, yield_now};

/// More time than anything here needs unless it is held up.
const LONG: Duration = Duration::from_secs(5);
/// Less than `LONG`, and more than the delays of a busy machine.
const SHORT: Duration = Duration::from_secs(2);

static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Computes until `ENOUGH` is set.
fn compute() {
    let begun = Instant::now();
    while !ENOUGH.load(SeqCst) && begun.elapsed() < LONG {
        std::hint::spin_loop();
    }
}

fn busy() -> JoinHandle<()> {
    FIBERS.spawn(compute)
}

/// Spawns a parent. It spawns a busy child, runs `waits`, and returns the time this took.
fn beside_busy_child(waits: impl FnOnce() + Send + 'static) -> Duration {
    FIBERS
        .spawn(|| {
            drop(busy());
            let begun = Instant::now();
            waits();
            begun.elapsed()
        })
        .join()
        .unwrap()
}

/// Makes a channel, and has another thread send to it in a millisecond.
fn soon() -> async_channel::Receiver<()> {
    let (sender, receiver) = async_channel::bounded(1);
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(1));
        sender.send_blocking(()).unwrap();
    });
    receiver
}

/// Spawns a fiber, already begun, of repeated sleeps of a millisecond. It returns the longest time
/// of one.
fn heartbeat() -> JoinHandle<Duration> {
    let (begins, begun) = mpsc::channel();
    let beats = FIBERS.spawn(move || {
        let mut longest = Duration::ZERO;
        while !ENOUGH.load(SeqCst) {
            let begun = Instant::now();
            sleep(Duration::from_millis(1));
            longest = longest.max(begun.elapsed());
            let _ = begins.send(());
        }
        longest
    });
    begun.recv().unwrap();
    beats
}

/// The longest beat's time, after another 100 ms of beats.
fn longest(beats: JoinHandle<Duration>) -> Duration {
    thread::sleep(Duration::from_millis(100));
    ENOUGH.store(true, SeqCst);
    beats.join().unwrap()
}

fn millisecond() {
    sleep(Duration::from_millis(1));
}

/// Spawns two children, and joins them once the second worker has certainly arrived.
///
/// A parent in a join does not keep its worker from beginning fibers, the busy child among them.
fn more_children() {
    let more = [FIBERS.spawn(|| ()), FIBERS.spawn(|| ())];
    sleep(Duration::from_millis(100));
    more.into_iter().for_each(|child| child.join().unwrap());
}

/// The time taken by the waiting code of `case`.
fn waited(case: &str) -> Duration {
    match case {
        "sleeps" => beside_busy_child(millisecond),
        "yields" => beside_busy_child(|| (0..100).for_each(|_| yield_now())),
        "receives" => beside_busy_child(|| {
            let receiver = soon();
            wait(receiver.recv()).unwrap();
        }),
        "blocks elsewhere" => beside_busy_child(|| blocking(|| thread::sleep(Duration::from_millis(1)))),
        // The waiting upcall is on the worker's own stack, so it blocks the worker.
        "blocks" => beside_busy_child(|| downcall(|| enter(millisecond).unwrap())),
        // One of two or three children is busy.
        "has another" => FIBERS
            .spawn(|| {
                drop(busy());
                let begun = Instant::now();
                drop(FIBERS.spawn(|| ()));
                millisecond();
                begun.elapsed()
            })
            .join()
            .unwrap(),
        "has more" => beside_busy_child(more_children),
        // The second worker arrives long after the parent's own worker has become idle.
        "has more, and a late worker" => {
            config().worker_start(|| thread::sleep(Duration::from_millis(20))).install().unwrap();
            beside_busy_child(more_children)
        }
        // The busy fiber is the child's own child.
        "has a grandchild" => {
            FIBERS.spawn(|| FIBERS.spawn(|| beside_busy_child(millisecond)).join().unwrap()).join().unwrap()
        }
        // The parent joins its busy child, so it has to wait. A neighbour need not wait.
        "neighbour of a join" => {
            let beats = heartbeat();
            drop(FIBERS.spawn(|| {
                let begun = Instant::now();
                busy().join().unwrap();
                begun.elapsed()
            }));
            longest(beats)
        }
        "neighbour of a spawn" => {
            let beats = heartbeat();
            drop(busy());
            longest(beats)
        }
        // The second worker has been started, and was idle for a time.
        "neighbour, both started" => {
            FIBERS
                .spawn(|| {
                    let two = [(); 2].map(|()| FIBERS.spawn(|| thread::sleep(Duration::from_millis(5))));
                    two.into_iter().for_each(|child| child.join().unwrap());
                })
                .join()
                .unwrap();
            let beats = heartbeat();
            drop(busy());
            longest(beats)
        }
        // Only the watcher takes over the fibers of a computing worker.
        "computes" => {
            let (begins, begun) = mpsc::channel();
            drop(FIBERS.spawn(move || {
                drop(FIBERS.spawn(move || begins.send(()).unwrap()));
                compute();
            }));
            let since = Instant::now();
            begun.recv().unwrap();
            since.elapsed()
        }
        _ => panic!("{case}"),
    }
}

fn check(test: &str, cases: &[&str]) {
    if let Some(case) = part() {
        let waited = waited(&case);
        ENOUGH.store(true, SeqCst);
        assert!(waited < SHORT, "{case}: {waited:?}");
        return;
    }
    let _limit = time_limit("fair_workers");
    for case in cases {
        stderr_of_success(&child(test, case, &[("UPCALL_WORKERS", "2")]));
    }
}

#[test]
fn a_busy_child_does_not_hold_up_its_parent() {
    let cases = [
        "sleeps",
        "yields",
        "receives",
        "blocks elsewhere",
        "blocks",
        "has another",
        "has more",
        "has more, and a late worker",
        "has a grandchild",
    ];
    check("a_busy_child_does_not_hold_up_its_parent", &cases);
}

#[test]
fn a_busy_fiber_does_not_hold_up_its_neighbours() {
    let cases = ["neighbour of a join", "neighbour of a spawn", "neighbour, both started"];
    check("a_busy_fiber_does_not_hold_up_its_neighbours", &cases);
}

#[test]
fn a_child_begins_while_its_parent_computes() {
    check("a_child_begins_while_its_parent_computes", &["computes"]);
}

/// Joins a chain of fibers. True if all of them ran on one thread, despite another idle worker.
fn nested(depth: usize) -> bool {
    let here = thread::current().id();
    depth == 0
        || FIBERS.spawn(move || (thread::current().id(), nested(depth - 1))).join().unwrap() == (here, true)
}

#[test]
fn a_child_that_its_only_neighbour_joins_begins_beside_it() {
    if part().is_none() {
        let _limit = time_limit("a_child_that_its_only_neighbour_joins_begins_beside_it");
        let name = "a_child_that_its_only_neighbour_joins_begins_beside_it";
        stderr_of_success(&child(name, "joins", &[("UPCALL_WORKERS", "2")]));
        return;
    }
    let beside = FIBERS.spawn(|| {
        // Starts both workers; one becomes idle.
        let two = [(); 2].map(|()| FIBERS.spawn(|| thread::sleep(Duration::from_millis(5))));
        two.into_iter().for_each(|child| child.join().unwrap());
        thread::sleep(Duration::from_millis(20));
        // If this thread loses its core for long, the watcher takes over the waiting child.
        (0..1000).filter(|_| nested(1)).count() + (0..100).filter(|_| nested(5)).count()
    });
    let beside = beside.join().unwrap();
    assert!(beside > 900, "{beside} of 1100 began on another thread");
}
