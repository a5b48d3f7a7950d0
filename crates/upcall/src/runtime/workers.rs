//! The worker threads: they begin the fibers of `spawn`, and each worker continues those that it
//! began.
//!
//! ```text
//! spawn ─┬─ in a worker's fiber: the fiber becomes that worker's newest;
//!        │                       the newest before it goes to `waiting`
//!        └─ elsewhere:           the fiber goes to `waiting`
//!
//! waiting: fibers not yet begun, and operations that woke themselves in their first poll,
//!          for any worker; for each, an idle worker is called, or one is started, up to
//!          the number configured, unless a worker is about to come anyway
//!
//! worker:  runs its own ready fibers, its newest, then `waiting`; then turns idle;
//!          its newest goes to `waiting` if another worker is available
//!          and other fibers of its own would be held up
//!
//! watcher: while a fiber waits to begin, takes over the newest of a stuck worker,
//!          and starts workers in the place of stuck ones
//! ```
//!
//! One lock guards `waiting` and the list of idle workers: whoever adds a fiber sees every worker
//! that did not see the fiber.
//!
//! A worker is a thread like any other to signals. All workers have the signal mask of the thread
//! that started the first one, whoever starts them. Handlers run on a worker at any instruction,
//! and may wake and spawn.

use std::collections::VecDeque;
use std::io;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use super::queue::Queue;
use super::runnable::Runnable;
use super::spawned::Refused;
use super::watcher::{self, Watched};
use super::worker;
use crate::config::settings;
use crate::process::{Mask, fork, with_signals_blocked};
use crate::sync::{self, Condition, Held, Lock, Word};
use crate::thread::parker;

/// The limit for all workers, however many are stuck.
pub(super) const MOST: usize = 512;
/// The stack of a worker's thread, in bytes. C called by its fibers runs there. Linux gives threads
/// as much by default.
const STACK: usize = 8 << 20;
/// How long a worker beyond the configured number stays idle.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// The workers' shared state, under one lock.
pub(super) struct Workers {
    /// Fibers not yet begun.
    pub(super) waiting: VecDeque<Runnable>,
    /// Workers that found nothing to do.
    pub(super) idle: Vec<&'static Queue>,
    /// The number of workers called for fibers in `waiting`, or started, and not yet arrived.
    pub called: usize,
    /// The number of these without begun fibers.
    called_free: usize,
    /// The number of arrivals so far.
    pub came: usize,
    pub all: Vec<Worker>,
    /// The queues of ended workers.
    pub(super) unused: Vec<&'static Queue>,
    numbered: usize,
    /// The signal mask of the thread that started the first worker.
    mask: Option<Mask>,
    pub state: State,
    /// Whether a caller of `shutdown` waits for the threads' ends.
    pub ending: bool,
    /// The number of ending threads that nobody joins.
    pub leaving: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// `shutdown` waits for the existing fibers.
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

static WORKERS: Lock<Workers> = Lock::new(Workers {
    waiting: VecDeque::new(),
    idle: Vec::new(),
    called: 0,
    called_free: 0,
    came: 0,
    all: Vec::new(),
    unused: Vec::new(),
    numbered: 0,
    mask: None,
    state: State::Open,
    ending: false,
    leaving: 0,
});
/// Notified for `shutdown`: a worker turned idle, an unjoined one ended, or another caller is done.
pub(super) static TURNED_IDLE: Condition = Condition::new();
/// The length of `waiting`, so that workers take the lock only if it is worthwhile.
pub(super) static WAITING: AtomicUsize = AtomicUsize::new(0);
/// The number of available workers: see `Workers::spare`.
pub(super) static SPARE: AtomicUsize = AtomicUsize::new(0);

pub(super) fn lock() -> Held<Workers> {
    sync::hold(&WORKERS)
}

/// The lock, for forks.
pub(super) fn lock_word() -> &'static Word {
    WORKERS.word()
}

/// The number of workers as long as none is stuck.
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

/// In the child of a fork: forgets the parent's workers, and the fibers not yet begun. If the
/// thread that forked is a worker, with queue `own`, it stays.
pub(super) fn forget_others(own: Option<&'static Queue>) {
    let workers = &mut *lock();
    let (own, others): (Vec<_>, _) =
        workers.all.drain(..).partition(|worker| own.is_some_and(|own| ptr::eq(own, worker.queue)));
    workers.all = own;
    // Neither their handles nor the values captured by the fibers may be dropped here.
    others.into_iter().for_each(std::mem::forget);
    workers.waiting.drain(..).for_each(std::mem::forget);
    WAITING.store(0, Relaxed);
    workers.idle.clear();
    workers.unused.clear();
    (workers.called, workers.called_free) = (0, 0);
    (workers.leaving, workers.ending) = (0, false);
    // `spare` would fix the settings, and a fork must not do that.
    let spare = if workers.all.is_empty() { 0 } else { workers.spare() };
    SPARE.store(spare, Relaxed);
    if workers.state == State::Closing {
        workers.state = State::Closed;
    }
}

/// Takes a fiber not yet begun.
pub(super) fn add(runnable: Runnable) -> Result<(), (Runnable, Refused)> {
    let Some(own) = Queue::own().filter(|own| own.event.is_none() && own.runs_own_code()) else {
        return add_from_outside(runnable, |state| state == State::Open);
    };
    // A worker running a fiber has neither ended nor gone to sleep, so it will come to this one.
    let displaced = own.put_newest(runnable);
    watcher::call();
    if let Some(before) = displaced {
        add_waiting(lock(), before);
    }
    Ok(())
}

/// Takes an operation that is ready for its second poll. A shutdown waits for it.
pub(super) fn add_polled(runnable: Runnable) -> Result<(), (Runnable, Refused)> {
    add_from_outside(runnable, |state| state != State::Closed)
}

/// Adds a fiber for any worker. Calls none if one is about to come anyway.
fn add_from_outside(
    runnable: Runnable,
    is_open: impl FnOnce(State) -> bool,
) -> Result<(), (Runnable, Refused)> {
    let mut workers = lock_to_start();
    if !is_open(workers.state) {
        return Err((runnable, Refused::Closed));
    }
    if workers.all.is_empty() {
        if let Err(error) = workers.start() {
            return Err((runnable, Refused::NoThread(error)));
        }
        workers.push_waiting(runnable);
        drop(workers);
        if !parker::other_cores() {
            // The watcher is the guard of deferred wakes.
            watcher::call();
        }
    } else if workers.not_called_for() < workers.coming() {
        workers.push_waiting(runnable);
        drop(workers);
        // The worker may not come for long.
        watcher::call();
    } else {
        add_waiting(workers, runnable);
    }
    Ok(())
}

/// Takes the lock. If the process has no worker, the caller may start the first.
fn lock_to_start() -> Held<Workers> {
    let workers = lock();
    if !workers.all.is_empty() {
        return workers;
    }
    drop(workers);
    fork::before_first_thread();
    lock()
}

/// Chooses a worker as the home of an operation that has waited elsewhere, and calls `enter` with
/// its queue, under the lock: until then, the worker may end.
pub(super) fn home(enter: impl FnOnce(&'static Queue)) -> Result<&'static Queue, Refused> {
    let mut workers = lock_to_start();
    if workers.state == State::Closed {
        return Err(Refused::Closed);
    }
    let is_first = workers.all.is_empty();
    let fewest = workers.all.iter().map(|worker| worker.queue).min_by_key(|queue| queue.load());
    let queue = match fewest.filter(|queue| queue.load() == 0 || workers.all.len() >= configured()) {
        Some(queue) => queue,
        None => match (workers.start(), fewest) {
            (Ok(queue), _) | (Err(_), Some(queue)) => queue,
            (Err(error), None) => return Err(Refused::NoThread(error)),
        },
    };
    enter(queue);
    drop(workers);
    if is_first && !parker::other_cores() {
        // The watcher is the guard of deferred wakes.
        watcher::call();
    }
    Ok(queue)
}

/// Adds a fiber for any worker. At least one worker exists.
pub(super) fn add_waiting(mut workers: Held<Workers>, runnable: Runnable) {
    workers.push_waiting(runnable);
    let called = workers.call_one();
    drop(workers);
    if let Called::Idle(idle) = called {
        idle.unpark();
    }
    // A blocking fiber may keep the worker from beginning this one.
    watcher::call();
}

/// The worker called for a waiting fiber.
pub(super) enum Called {
    /// To be woken after the lock has been given back.
    Idle(&'static Queue),
    Started,
    Nobody,
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

    /// What the calling worker is to begin. `None` if that would hold up its own fibers and another
    /// worker is about to come.
    pub(super) fn take_waiting(&mut self, queue: &Queue) -> Option<Runnable> {
        if self.called != 0 && queue.others() != 0 { None } else { self.pop_waiting() }
    }

    pub fn waiting(&self) -> impl Iterator<Item = &Runnable> {
        self.waiting.iter()
    }

    /// The number of waiting fibers that no worker was called for.
    pub fn not_called_for(&self) -> usize {
        self.waiting.len().saturating_sub(self.called)
    }

    /// The number of workers that come to a waiting fiber uncalled: between two runs, or in the
    /// completion of a task. A worker found there by the watcher does not count.
    fn coming(&self) -> usize {
        let comes = |worker: &&Worker| {
            let queue = worker.queue;
            let is_stuck = worker.watched == Some(queue.steps.load(Relaxed));
            queue.is_about_to_look() && !is_stuck && !self.is_idle(queue)
        };
        self.all.iter().filter(comes).count().saturating_sub(self.called)
    }

    pub fn is_idle(&self, queue: &Queue) -> bool {
        self.idle.iter().any(|idle| ptr::eq(*idle, queue))
    }

    /// Calls a worker for a waiting fiber, if one is available: an idle one without begun fibers, a
    /// new one, or the idle one with the fewest begun fibers, in this order.
    ///
    /// While a worker without begun fibers is about to come, calls none that has some: it might
    /// come first, and the fiber that it begins would hold up its own.
    pub fn call_one(&mut self) -> Called {
        let free = self.free();
        // If no thread can be started for another worker, an existing one comes to the fiber.
        if free.is_none() && self.all.len() < configured() && self.start().is_ok() {
            return Called::Started;
        }
        let idle = if self.called_free == 0 { 0..self.idle.len() } else { 0..0 };
        let fewest = || idle.min_by_key(|&place| self.idle[place].begun());
        free.or_else(fewest).map_or(Called::Nobody, |place| Called::Idle(self.call(place)))
    }

    /// The place of an idle worker without begun fibers.
    fn free(&self) -> Option<usize> {
        self.idle.iter().rposition(|idle| idle.begun() == 0)
    }

    /// Calls the idle worker at `place`.
    fn call(&mut self, place: usize) -> &'static Queue {
        let called = self.idle.swap_remove(place);
        self.called += 1;
        self.called_free += usize::from(called.begun() == 0);
        self.note_spare();
        called
    }

    /// Expects the called workers no longer, as they are late. The others take the waiting fibers,
    /// too.
    pub fn expect_nobody(&mut self) {
        (self.called, self.called_free) = (0, 0);
        self.note_spare();
    }

    /// Notes the arrival of the calling worker, and gives it a fiber to begin.
    ///
    /// If a fiber of its own is ready and another worker is idle without begun fibers, returns that
    /// worker instead, to be woken.
    pub(super) fn come(&mut self, queue: &Queue) -> (Option<Runnable>, Option<&'static Queue>) {
        self.called = self.called.saturating_sub(1);
        self.called_free = self.called_free.saturating_sub(usize::from(queue.begun() == 0));
        self.came = self.came.wrapping_add(1);
        self.note_spare();
        if queue.is_ready() && !self.waiting.is_empty() {
            if let Some(free) = self.free() {
                return (None, Some(self.call(free)));
            }
        }
        (self.pop_waiting(), None)
    }

    /// Takes the calling worker, just woken, off the idle list; returns whether it had been called.
    pub(super) fn leave_idle(&mut self, queue: &Queue) -> bool {
        let place = self.idle.iter().position(|idle| ptr::eq(*idle, queue));
        if let Some(place) = place {
            self.idle.swap_remove(place);
            self.note_spare();
        }
        place.is_none()
    }

    /// The number of available workers: idle, not yet started, or about to come to the waiting
    /// fibers.
    pub(super) fn spare(&self) -> usize {
        self.idle.len() + self.called + configured().saturating_sub(self.all.len())
    }

    pub(super) fn note_spare(&self) {
        SPARE.store(self.spare(), Relaxed);
    }

    /// Starts a worker, for a waiting fiber. The new thread gets no further than to the lock, held
    /// by the caller.
    pub fn start(&mut self) -> io::Result<&'static Queue> {
        let queue = self.unused.pop().unwrap_or_else(|| Queue::new(None));
        let name = format!("upcall-{}", self.numbered);
        let builder = thread::Builder::new().name(name.clone()).stack_size(STACK);
        let is_first = self.all.is_empty();
        let started = with_signals_blocked(|own| {
            let mask = self.mask.filter(|_| !is_first).unwrap_or(*own);
            Ok((builder.spawn(move || worker::work(queue, &mask))?, mask))
        });
        match started {
            Ok((handle, mask)) => {
                self.mask = Some(mask);
                self.numbered += 1;
                self.called += 1;
                self.called_free += 1;
                self.all.push(Worker { queue, name, handle, watched: None });
                self.note_spare();
                Ok(queue)
            }
            Err(error) => {
                self.unused.push(queue);
                Err(error)
            }
        }
    }

    /// Whether nothing remains to be run, here or by any worker.
    pub fn are_done(&self) -> bool {
        self.waiting.is_empty()
            && self.all.iter().all(|worker| self.is_idle(worker.queue) && !worker.queue.has_work())
    }
}
