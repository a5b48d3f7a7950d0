//! The worker threads: they begin the fibers of `spawn`, and each goes on with those that it began.
//!
//! ```text
//! spawn ─┬─ in a worker's fiber: kept as that worker's newest; the one kept before goes to `waiting`
//!        └─ elsewhere: to `waiting`
//! waiting: fibers that nobody has begun, for any worker ── an idle worker is woken, or one is started up to the number configured
//! worker:  own ready fibers, its newest, `waiting`; then idle
//! watcher: while something waits to begin: takes over what a stuck worker keeps, and starts workers in the place of stuck ones
//! ```
//!
//! One lock guards `waiting` and the list of the idle: who adds a fiber sees every worker that did not see the fiber.

use std::collections::VecDeque;
use std::io;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use stackbounds::stack_pointer;

use super::queue::{KEPT_PLACES, Queue, Runnable};
use super::sys::with_signals_blocked;
use super::task::Refused;
use super::watcher::{self, Watched};
use crate::config::settings;
use crate::quiet::quietly;
use crate::sync;
use crate::thread::{Hot, KeptRecord, record};

/// All workers at most, however many are stuck.
pub(super) const MOST: usize = 512;
/// The stack of a worker's thread, on which the C code runs that fibers call: as much as Linux gives to threads by default.
const STACK: usize = 8 << 20;
/// How long a worker beyond the number configured stays idle.
const IDLE: Duration = Duration::from_secs(1);

/// What is shared, under one lock.
pub(super) struct Workers {
    /// Fibers that nobody has begun.
    waiting: VecDeque<Runnable>,
    /// Workers that found nothing to do.
    idle: Vec<&'static Queue>,
    pub all: Vec<Worker>,
    /// Queues of workers that are gone.
    unused: Vec<&'static Queue>,
    numbered: usize,
    pub state: State,
    /// Some caller of `shutdown` waits for the threads' ends.
    pub ending: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// `shutdown` waits for what there is.
    Closing,
    /// The workers are to end.
    Closed,
}

pub(super) struct Worker {
    pub queue: &'static Queue,
    pub name: String,
    pub handle: thread::JoinHandle<()>,
    pub watched: Watched,
}

static WORKERS: Mutex<Workers> = Mutex::new(Workers {
    waiting: VecDeque::new(),
    idle: Vec::new(),
    all: Vec::new(),
    unused: Vec::new(),
    numbered: 0,
    state: State::Open,
    ending: false,
});
/// Told when a worker turns idle while `shutdown` waits.
pub(super) static TURNED_IDLE: Condvar = Condvar::new();
/// How many are in `waiting`, so that workers look only when it is worthwhile.
static WAITING: AtomicUsize = AtomicUsize::new(0);

pub(super) fn lock() -> MutexGuard<'static, Workers> {
    sync::lock(&WORKERS)
}

/// How many workers there are when none is stuck.
pub(super) fn configured() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    match COUNT.load(Relaxed) {
        0 => {
            let count = match settings().workers {
                0 => thread::available_parallelism().map_or(1, |cores| cores.get()),
                count => count.min(MOST),
            };
            COUNT.store(count, Relaxed);
            count
        }
        count => count,
    }
}

/// In the child of a fork: all workers but the calling thread, if it is one, are the parent's, and so are the fibers that nobody had begun.
pub(super) fn forget_others() {
    let workers = &mut *lock();
    let (own, others): (Vec<_>, _) =
        workers.all.drain(..).partition(|worker| Queue::own().is_some_and(|own| ptr::eq(own, worker.queue)));
    workers.all = own;
    // Neither their handles nor what the fibers have captured may be dropped here.
    others.into_iter().for_each(std::mem::forget);
    workers.waiting.drain(..).for_each(std::mem::forget);
    WAITING.store(0, Relaxed);
    workers.idle.clear();
    workers.unused.clear();
    workers.ending = false;
    if workers.state == State::Closing {
        workers.state = State::Closed;
    }
}

/// Takes a fiber that nobody has begun.
pub(super) fn add(runnable: Runnable) -> Result<(), (Runnable, Refused)> {
    let Some(own) = Queue::own().filter(|own| own.event.is_none()) else {
        let mut workers = lock();
        if workers.state != State::Open {
            return Err((runnable, Refused::Closed));
        }
        if workers.all.is_empty() {
            if let Err(error) = workers.start() {
                return Err((runnable, Refused::NoThread(error)));
            }
            workers.push_waiting(runnable);
        } else {
            add_waiting(workers, runnable);
        }
        return Ok(());
    };
    // A worker that runs a fiber has not ended, and will come to this one.
    let displaced = own.keep_newest(runnable);
    watcher::call();
    if let Some(before) = displaced {
        add_waiting(lock(), before);
    }
    Ok(())
}

/// Adds a fiber for any worker, of which there is one at least.
fn add_waiting(mut workers: MutexGuard<'_, Workers>, runnable: Runnable) {
    workers.push_waiting(runnable);
    let idle = workers.idle.pop();
    if idle.is_none() && workers.all.len() < configured() {
        // If there is no thread for another worker, those that there are come to it.
        let _ = workers.start();
    }
    drop(workers);
    if let Some(idle) = idle {
        idle.unpark();
    }
    // Whoever is to begin it may be kept from that by a fiber that blocks.
    watcher::call();
}

impl Workers {
    pub fn push_waiting(&mut self, runnable: Runnable) {
        self.waiting.push_back(runnable);
        WAITING.store(self.waiting.len(), Relaxed);
    }

    fn pop_waiting(&mut self) -> Option<Runnable> {
        let runnable = self.waiting.pop_front();
        WAITING.store(self.waiting.len(), Relaxed);
        runnable
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Runnable> {
        self.waiting.iter()
    }

    pub fn is_idle(&self, queue: &Queue) -> bool {
        self.idle.iter().any(|idle| ptr::eq(*idle, queue))
    }

    pub fn pop_idle(&mut self) -> Option<&'static Queue> {
        self.idle.pop()
    }

    /// Starts a worker. The new thread gets no further than to the lock, which the caller holds.
    pub fn start(&mut self) -> io::Result<()> {
        let queue = self.unused.pop().unwrap_or_else(|| Queue::new(None));
        let name = format!("upcall-{}", self.numbered);
        let builder = thread::Builder::new().name(name.clone()).stack_size(STACK);
        match with_signals_blocked(|| builder.spawn(move || work(queue))) {
            Ok(handle) => {
                self.numbered += 1;
                self.all.push(Worker { queue, name, handle, watched: None });
                Ok(())
            }
            Err(error) => {
                self.unused.push(queue);
                Err(error)
            }
        }
    }

    /// Whether nothing is left to be run, here or by any worker.
    pub fn are_done(&self) -> bool {
        self.waiting.is_empty()
            && self.all.iter().all(|worker| self.is_idle(worker.queue) && !worker.queue.has_fibers())
    }
}

/// A worker's life.
fn work(queue: &'static Queue) {
    let hot = Hot::here();
    record::attach_if_new(hot, stack_pointer());
    // For as long as the queue has the thread's parker.
    let _kept = KeptRecord::of(hot);
    let parker = hot.parker();
    queue.begin(parker);
    hot.set_meanwhile(Some(super::run_meanwhile));
    loop {
        quietly(|| {
            while let Some(runnable) = next(queue) {
                queue.run(runnable);
            }
        });
        let mut workers = lock();
        if let Some(runnable) = workers.pop_waiting() {
            drop(workers);
            quietly(|| queue.run(runnable));
            continue;
        }
        if queue.is_ready() {
            continue;
        }
        if workers.state == State::Closed {
            break;
        }
        queue.shrink();
        workers.waiting.shrink_to(KEPT_PLACES);
        let spare = workers.all.len() > configured() && !queue.has_fibers();
        workers.idle.push(queue);
        if workers.state == State::Closing {
            TURNED_IDLE.notify_all();
        }
        drop(workers);
        let woken = parker.park(spare.then(|| Instant::now() + IDLE));
        let mut workers = lock();
        workers.idle.retain(|idle| !ptr::eq(*idle, queue));
        if !woken && workers.all.len() > configured() && workers.waiting.is_empty() && !queue.is_ready() {
            // Nobody joins it: its handle is dropped.
            workers.all.retain(|worker| !ptr::eq(worker.queue, queue));
            hot.set_meanwhile(None);
            queue.end();
            workers.unused.push(queue);
            return;
        }
    }
    hot.set_meanwhile(None);
    queue.end();
    lock().unused.push(queue);
}

/// What the worker runs next: for so many steps rather one that is ready, for as many rather one that nobody has begun. So neither kind
/// keeps the other back, and a fiber that spawns and joins many is not resumed after each.
#[inline]
fn next(queue: &'static Queue) -> Option<Runnable> {
    const STEPS: usize = 32;
    if queue.steps.load(Relaxed) & STEPS != 0 {
        queue.take_newest().or_else(take_waiting).or_else(|| queue.pop())
    } else {
        queue.pop().or_else(|| queue.take_newest()).or_else(take_waiting)
    }
}

fn take_waiting() -> Option<Runnable> {
    if WAITING.load(Relaxed) == 0 { None } else { lock().pop_waiting() }
}
