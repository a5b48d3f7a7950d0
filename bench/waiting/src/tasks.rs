//! tokio's tasks.
//!
//! Most run on its current-thread runtime. Tasks with blocking calls, or with partners on other
//! threads, run on its multi-thread runtime.

use std::future::pending;
use std::sync::{LazyLock, Mutex};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinHandle, spawn, spawn_blocking, yield_now};

use super::{BATCH, SLEEPERS, Subject, batches, sleep_in_c, timed};

pub struct Tasks;

/// The ends of two channels, one to the partner and one back.
type Ends = (Sender<u32>, Receiver<u32>);

static THREADS: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

fn timed_in_task(f: impl Future<Output = ()>) -> f64 {
    static THREAD: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));
    timed(|| THREAD.block_on(f))
}

fn channels() -> (Ends, Ends) {
    let ((there, arrives), (back, returns)) = (channel(1), channel(1));
    ((there, returns), (back, arrives))
}

async fn answer((sender, mut receiver): Ends) {
    while let Some(number) = receiver.recv().await {
        if sender.send(number).await.is_err() {
            break;
        }
    }
}

async fn exchange_through((sender, receiver): &mut Ends) -> Option<()> {
    sender.send(1).await.ok()?;
    receiver.recv().await.map(drop)
}

async fn join<T>(task: JoinHandle<T>) -> T {
    task.await.expect("no panic and no abort")
}

impl Subject for Tasks {
    fn spawn_and_join(count: usize) -> f64 {
        timed_in_task(async {
            for _ in 0..count {
                join(spawn(async {})).await;
            }
        })
    }

    fn spawn_and_join_in_batches(count: usize) -> f64 {
        timed_in_task(async {
            let mut batch = Vec::with_capacity(BATCH);
            for size in batches(count) {
                batch.extend((0..size).map(|_| spawn(async {})));
                for task in batch.drain(..) {
                    join(task).await;
                }
            }
        })
    }

    fn yields(count: usize) -> f64 {
        async fn half(count: usize) {
            for _ in 0..count / 2 {
                yield_now().await;
            }
        }
        timed_in_task(async {
            let other = spawn(half(count));
            half(count).await;
            join(other).await;
        })
    }

    fn round_trips(count: usize) -> f64 {
        timed_in_task(async {
            let (mut ours, theirs) = channels();
            let other = spawn(answer(theirs));
            for _ in 0..count {
                exchange_through(&mut ours).await.expect("an answer");
            }
            drop(ours);
            join(other).await;
        })
    }

    fn park(count: usize) -> f64 {
        timed_in_task(async {
            for _ in 0..count {
                drop(spawn(pending::<()>()));
            }
            yield_now().await;
        })
    }

    fn blocking_calls_elsewhere(count: usize) -> Option<f64> {
        async fn sleeper(count: usize) {
            for _ in 0..count {
                join(spawn_blocking(sleep_in_c)).await;
            }
        }
        Some(timed(|| {
            THREADS.block_on(async {
                for task in [(); SLEEPERS].map(|()| spawn(sleeper(count))) {
                    join(task).await;
                }
            })
        }))
    }
}

pub fn exchange() -> Option<()> {
    static ENDS: LazyLock<Mutex<Ends>> = LazyLock::new(|| {
        let (ours, theirs) = channels();
        drop(THREADS.spawn(answer(theirs)));
        Mutex::new(ours)
    });
    let mut ends = ENDS.lock().ok()?;
    THREADS.handle().block_on(exchange_through(&mut ends))
}
