//! upcall's fibers, and the channels of kanal.

use std::cell::OnceCell;
use std::sync::LazyLock;

use kanal::{AsyncReceiver, AsyncSender, bounded_async};
use upcall::{JoinHandle, LocalRuntime, blocking, enter, wait, yield_now};

use super::{BATCH, SLEEPERS, Subject, batches, sleep_in_c, timed};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

pub struct Fibers;

/// The ends of two channels, one to the partner and one back.
type Ends = (AsyncSender<u32>, AsyncReceiver<u32>);

/// A pair of channel ends on which nothing is ever sent.
static NOTHING: LazyLock<Ends> = LazyLock::new(|| bounded_async(1));

/// Makes two channels. Returns this side's ends, and the partner's.
fn channels() -> (Ends, Ends) {
    let ((there, arrives), (back, returns)) = (bounded_async(1), bounded_async(1));
    ((there, returns), (back, arrives))
}

/// Sends back each received number, until the channel closes.
fn answer((sender, receiver): Ends) {
    while let Ok(number) = wait(receiver.recv()) {
        if wait(sender.send(number)).is_err() {
            break;
        }
    }
}

fn exchange((sender, receiver): &Ends) -> Option<()> {
    wait(sender.send(1)).ok()?;
    wait(receiver.recv()).ok().map(drop)
}

/// The nanoseconds taken by `f` in a fiber on a worker.
fn timed_in_fiber(f: impl FnOnce() + Send + 'static) -> f64 {
    join(FIBERS.spawn(|| timed(f)))
}

fn join<T>(fiber: JoinHandle<T>) -> T {
    fiber.join().expect("no panic and no abort")
}

impl Subject for Fibers {
    fn spawn_and_join(count: usize) -> f64 {
        timed_in_fiber(move || (0..count).for_each(|_| join(FIBERS.spawn(|| ()))))
    }

    fn spawn_and_join_in_batches(count: usize) -> f64 {
        timed_in_fiber(move || {
            let mut batch = Vec::with_capacity(BATCH);
            for size in batches(count) {
                batch.extend((0..size).map(|_| FIBERS.spawn(|| ())));
                batch.drain(..).for_each(join);
            }
        })
    }

    fn yields(count: usize) -> f64 {
        timed_in_fiber(move || {
            let half = move || (0..count / 2).for_each(|_| yield_now());
            let other = FIBERS.spawn(half);
            half();
            join(other);
        })
    }

    fn round_trips(count: usize) -> f64 {
        timed_in_fiber(move || {
            let (ours, theirs) = channels();
            let other = FIBERS.spawn(|| answer(theirs));
            (0..count).for_each(|_| exchange(&ours).expect("an answer"));
            drop(ours);
            join(other);
        })
    }

    fn park(count: usize) -> f64 {
        timed(|| {
            for number in 1..=count {
                drop(FIBERS.spawn(|| wait(NOTHING.1.recv()).is_ok()));
                if number % BATCH == 0 || number == count {
                    // This fiber begins after all earlier ones.
                    join(FIBERS.spawn(|| ()));
                }
            }
        })
    }

    fn blocking_calls(count: usize) -> Option<f64> {
        Some(sleepers(count, sleep_in_c))
    }

    fn blocking_calls_elsewhere(count: usize) -> Option<f64> {
        Some(sleepers(count, || blocking(sleep_in_c)))
    }
}

fn sleepers(count: usize, call: fn()) -> f64 {
    timed(|| {
        let fibers = [(); SLEEPERS].map(|()| FIBERS.spawn(move || (0..count).for_each(|_| call())));
        fibers.into_iter().for_each(join);
    })
}

pub fn exchange_with_worker() -> Option<()> {
    static ENDS: LazyLock<Ends> = LazyLock::new(|| {
        let (ours, theirs) = channels();
        drop(FIBERS.spawn(|| answer(theirs)));
        ours
    });
    enter(|| exchange(&ENDS)).ok().flatten()
}

pub fn exchange_with_own_thread() -> Option<()> {
    thread_local! {
        static OWN: OnceCell<(LocalRuntime, Ends)> = const { OnceCell::new() };
    }
    let begin = || {
        let runtime = FIBERS.local_runtime().expect("the thread's only one");
        let (ours, theirs) = channels();
        drop(runtime.spawn_local(|| answer(theirs)));
        (runtime, ours)
    };
    enter(|| OWN.with(|own| exchange(&own.get_or_init(begin).1))).ok().flatten()
}
