//! Channels and locks of other libraries, used through `wait`.
//!
//! The users are fibers of one thread, fibers of workers, and threads, in all pairs.

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use common::FIBERS;
use common::time_limit;
use futures::future::{self, Either};
use upcall::{LocalRuntime, sleep, wait, yield_now};

/// The place of the waiting code.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A fiber of the test's own thread.
    Local,
    Worker,
    Thread,
}

const PLACES: [Place; 3] = [Place::Local, Place::Worker, Place::Thread];

type Joins<T> = Box<dyn FnOnce() -> T>;

impl Place {
    /// Starts `f` here. The returned closure waits for its result.
    fn start<T: Send + 'static>(
        self,
        runtime: &LocalRuntime,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Joins<T> {
        match self {
            Place::Local => {
                let fiber = runtime.spawn_local(f);
                Box::new(|| fiber.join().unwrap())
            }
            Place::Worker => {
                let fiber = FIBERS.spawn(f);
                Box::new(|| fiber.join().unwrap())
            }
            Place::Thread => {
                let (sender, receiver) = async_channel::bounded(1);
                thread::spawn(move || sender.try_send(f()));
                // Meanwhile, the test's thread has fibers to run.
                Box::new(move || wait(receiver.recv()).expect("the thread has not panicked"))
            }
        }
    }
}

/// Calls `test` for each pair of places.
fn between_places(test: impl Fn(Place, Place, &LocalRuntime)) {
    let runtime = FIBERS.local_runtime().unwrap();
    for a in PLACES {
        for b in PLACES {
            let said =
                common::AtDrop(|| _ = thread::panicking().then(|| eprintln!("between {a:?} and {b:?}")));
            test(a, b, &runtime);
            drop(said);
        }
    }
}

/// Tests a channel with three senders and one receiver.
///
/// `make` returns a function that sends, cloned for each sender, and a function that receives. The
/// latter returns `None` after the last sender is gone.
fn channel<S, R>(name: &'static str, make: impl Fn() -> (S, R))
where
    S: FnMut(usize) + Clone + Send + 'static,
    R: FnMut() -> Option<usize> + Send + 'static,
{
    const EACH: usize = 200;
    let _limit = time_limit(name);
    between_places(|sends, receives, runtime| {
        let (send, mut receive) = make();
        let sender = |n: usize| {
            let mut send = send.clone();
            sends.start(runtime, move || (0..EACH).for_each(|i| send(n * EACH + i)))
        };
        let senders: Vec<_> = (0..3).map(sender).collect();
        drop(send);
        let receiver = receives.start(runtime, move || {
            let mut next = [0, EACH, 2 * EACH];
            while let Some(number) = receive() {
                assert_eq!(number, next[number / EACH], "in the order in which it was sent");
                next[number / EACH] += 1;
            }
            next
        });
        senders.into_iter().for_each(|join| join());
        assert_eq!(receiver(), [EACH, 2 * EACH, 3 * EACH]);
    });
}

/// Declares a test for each channel.
macro_rules! channels {
    ($($name:ident: $make:expr;)*) => { $(
        #[test]
        fn $name() {
            channel(stringify!($name), || $make);
        }
    )* };
}

channels! {
    async_channel_bounded: {
        let (sender, receiver) = async_channel::bounded(1);
        (move |n: usize| wait(sender.send(n)).unwrap(), move || wait(receiver.recv()).ok())
    };
    async_channel_unbounded: {
        let (sender, receiver) = async_channel::unbounded();
        (move |n: usize| wait(sender.send(n)).unwrap(), move || wait(receiver.recv()).ok())
    };
    tokio_bounded: {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        (move |n: usize| wait(sender.send(n)).unwrap(), move || wait(receiver.recv()))
    };
    tokio_unbounded: {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        (move |n: usize| sender.send(n).unwrap(), move || wait(receiver.recv()))
    };
    futures_bounded: {
        use futures::{SinkExt, StreamExt};
        let (mut sender, mut receiver) = futures::channel::mpsc::channel(1);
        (move |n: usize| wait(sender.send(n)).unwrap(), move || wait(receiver.next()))
    };
    kanal_bounded: {
        let (sender, receiver) = kanal::bounded_async(1);
        (move |n: usize| wait(sender.send(n)).unwrap(), move || wait(receiver.recv()).ok())
    };
    kanal_without_buffer: {
        let (sender, receiver) = kanal::bounded_async(0);
        (move |n: usize| wait(sender.send(n)).unwrap(), move || wait(receiver.recv()).ok())
    };
    flume_bounded: {
        let (sender, receiver) = flume::bounded(1);
        (move |n: usize| wait(sender.send_async(n)).unwrap(), move || wait(receiver.recv_async()).ok())
    };
    flume_without_buffer: {
        let (sender, receiver) = flume::bounded(0);
        (move |n: usize| wait(sender.send_async(n)).unwrap(), move || wait(receiver.recv_async()).ok())
    };
}

/// Declares a test for each lock. `make` makes a lock around a number, and `lock` waits for it.
macro_rules! locks {
    ($($name:ident: $make:expr, $lock:expr;)*) => { $(
        #[test]
        fn $name() {
            const EACH: usize = 50;
            let _limit = time_limit(stringify!($name));
            between_places(|a, b, runtime| {
                let lock = Arc::new($make);
                let add = || {
                    let lock = lock.clone();
                    move || for turn in 0..EACH {
                        let guard = $lock(&lock);
                        let before = guard.get();
                        if turn % 2 == 0 { yield_now() } else { sleep(Duration::from_micros(10)) }
                        guard.set(before + 1);
                    }
                };
                let adds: Vec<_> = [a, b, a, b].into_iter().map(|place| place.start(runtime, add())).collect();
                adds.into_iter().for_each(|join| join());
                assert_eq!($lock(&lock).get(), 4 * EACH);
            });
        }
    )* };
}

locks! {
    async_mutex: async_lock::Mutex::new(Cell::new(0)), |lock| wait(async_lock::Mutex::lock(lock));
    async_rwlock: async_lock::RwLock::new(Sendable::default()), |lock| wait(async_lock::RwLock::write(lock));
    tokio_mutex: tokio::sync::Mutex::new(Cell::new(0)), |lock| wait(tokio::sync::Mutex::lock(lock));
    tokio_rwlock: tokio::sync::RwLock::new(Sendable::default()), |lock| wait(tokio::sync::RwLock::write(lock));
}

/// A shareable number with the interface of a `Cell`.
#[derive(Default)]
struct Sendable(AtomicUsize);

impl Sendable {
    fn get(&self) -> usize {
        self.0.load(SeqCst)
    }

    fn set(&self, number: usize) {
        self.0.store(number, SeqCst);
    }
}

/// Declares a test for each semaphore: at most two of eight hold a permit at a time.
macro_rules! semaphores {
    ($($name:ident: $make:expr, $acquire:expr;)*) => { $(
        #[test]
        fn $name() {
            let _limit = time_limit(stringify!($name));
            between_places(|a, b, runtime| {
                let shared = Arc::new(($make, AtomicUsize::new(0)));
                let places = [a, b, a, b, a, b, a, b];
                let holders: Vec<_> = places.into_iter().map(|place| {
                    let shared = shared.clone();
                    place.start(runtime, move || for _ in 0..20 {
                        let (semaphore, holders) = &*shared;
                        let permit = $acquire(semaphore);
                        assert!(holders.fetch_add(1, SeqCst) < 2);
                        yield_now();
                        holders.fetch_sub(1, SeqCst);
                        drop(permit);
                    })
                }).collect();
                holders.into_iter().for_each(|join| join());
            });
        }
    )* };
}

semaphores! {
    async_semaphore: async_lock::Semaphore::new(2), |semaphore| wait(async_lock::Semaphore::acquire(semaphore));
    tokio_semaphore: tokio::sync::Semaphore::new(2), |semaphore| wait(tokio::sync::Semaphore::acquire(semaphore)).unwrap();
}

#[test]
fn readers_see_what_a_writer_has_finished() {
    let _limit = time_limit("readers_see_what_a_writer_has_finished");
    between_places(|reads, writes, runtime| {
        let lock = Arc::new(async_lock::RwLock::new((0, 0)));
        let own = lock.clone();
        let writer = writes.start(runtime, move || {
            for n in 1..=100 {
                let mut pair = wait(own.write());
                pair.0 = n;
                yield_now();
                pair.1 = n;
            }
        });
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let lock = lock.clone();
                reads.start(runtime, move || {
                    while {
                        let pair = wait(lock.read());
                        assert_eq!(pair.0, pair.1);
                        pair.0 != 100
                    } {
                        yield_now();
                    }
                })
            })
            .collect();
        writer();
        readers.into_iter().for_each(|join| join());
    });
}

#[test]
fn oneshots_and_notifications() {
    let _limit = time_limit("oneshots_and_notifications");
    between_places(|a, b, runtime| {
        for _ in 0..50 {
            let (to_b, from_a) = tokio::sync::oneshot::channel();
            let (to_a, from_b) = futures::channel::oneshot::channel();
            let notify = Arc::new(tokio::sync::Notify::new());
            let notified = notify.clone();
            let first = a.start(runtime, move || {
                to_b.send(20).unwrap();
                let answer: i32 = wait(from_b).unwrap();
                notify.notify_one();
                answer
            });
            let second = b.start(runtime, move || {
                let asked: i32 = wait(from_a).unwrap();
                to_a.send(asked + 1).unwrap();
                wait(notified.notified());
            });
            assert_eq!(first(), 21);
            second();
            let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
            let gone = a.start(runtime, move || wait(receiver).is_err());
            b.start(runtime, move || drop(sender))();
            assert!(gone(), "whose sender was dropped");
        }
    });
}

#[test]
fn several_at_once() {
    let _limit = time_limit("several_at_once");
    between_places(|waits, answers, runtime| {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..20).map(|_| futures::channel::oneshot::channel()).unzip();
        let all = waits.start(runtime, move || wait(future::join_all(receivers)));
        let answering = senders.into_iter().rev().enumerate().map(|(n, sender)| {
            answers.start(runtime, move || {
                yield_now();
                sender.send(19 - n).unwrap();
            })
        });
        answering.collect::<Vec<_>>().into_iter().for_each(|join| join());
        assert!(all().into_iter().map(Result::unwrap).eq(0..20));

        let (sender, receiver) = async_channel::bounded::<u8>(1);
        let first = waits.start(runtime, move || {
            let never = future::pending::<()>();
            match wait(future::select(Box::pin(receiver.recv()), never)) {
                Either::Left((received, _)) => received.unwrap(),
                Either::Right(_) => unreachable!(),
            }
        });
        answers.start(runtime, move || wait(sender.send(3)).unwrap())();
        assert_eq!(first(), 3);
    });
}
