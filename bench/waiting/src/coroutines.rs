//! may's coroutines and its unbounded channels.

use std::sync::{LazyLock, Mutex};

use may::coroutine::{JoinHandle, park, yield_now};
use may::go;
use may::sync::mpsc::{Receiver, Sender, channel};

use super::{BATCH, Subject, batches, timed};

pub struct Coroutines;

/// The ends of two channels, one to the partner and one back.
type Ends = (Sender<u32>, Receiver<u32>);

fn channels() -> (Ends, Ends) {
    let ((there, arrives), (back, returns)) = (channel(), channel());
    ((there, returns), (back, arrives))
}

fn answer((sender, receiver): Ends) {
    while let Ok(number) = receiver.recv() {
        if sender.send(number).is_err() {
            break;
        }
    }
}

fn exchange_through((sender, receiver): &Ends) -> Option<()> {
    sender.send(1).ok()?;
    receiver.recv().ok().map(drop)
}

fn timed_in_coroutine(f: impl FnOnce() + Send + 'static) -> f64 {
    join(go!(|| timed(f)))
}

fn join<T>(coroutine: JoinHandle<T>) -> T {
    coroutine.join().expect("no panic and no cancellation")
}

impl Subject for Coroutines {
    fn spawn_and_join(count: usize) -> f64 {
        timed_in_coroutine(move || (0..count).for_each(|_| join(go!(|| ()))))
    }

    fn spawn_and_join_in_batches(count: usize) -> f64 {
        timed_in_coroutine(move || {
            let mut batch = Vec::with_capacity(BATCH);
            for size in batches(count) {
                batch.extend((0..size).map(|_| go!(|| ())));
                batch.drain(..).for_each(join);
            }
        })
    }

    fn yields(count: usize) -> f64 {
        timed_in_coroutine(move || {
            let half = move || (0..count / 2).for_each(|_| yield_now());
            let other = go!(half);
            half();
            join(other);
        })
    }

    fn round_trips(count: usize) -> f64 {
        timed_in_coroutine(move || {
            let (ours, theirs) = channels();
            let other = go!(|| answer(theirs));
            (0..count).for_each(|_| exchange_through(&ours).expect("an answer"));
            drop(ours);
            join(other);
        })
    }

    fn park(count: usize) -> f64 {
        timed_in_coroutine(move || {
            (0..count).for_each(|_| drop(go!(park)));
            join(go!(|| ()));
        })
    }
}

pub fn exchange() -> Option<()> {
    static ENDS: LazyLock<Mutex<Ends>> = LazyLock::new(|| {
        let (ours, theirs) = channels();
        drop(go!(|| answer(theirs)));
        Mutex::new(ours)
    });
    exchange_through(&*ENDS.lock().ok()?)
}
