//! The watcher: a thread that looks for stuck workers while fibers wait to begin.
//!
//! A worker is *stuck* if two looks find it at the same step, in a blocking C call most often. The
//! watcher then takes over the worker's newest fiber. If the worker is also blocked in the kernel,
//! the watcher starts another worker in its place. A worker that computes, or waits for a core, has
//! all the company it can use.
//!
//! It also makes the deferred wakes of polls that do not come to them. It sleeps while there is
//! nothing to do. For fibers begun on a blocked worker, it can do nothing but report them
//! (`behind`).
//!
//! It blocks all signals, and calls nobody else's code.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::behind::Behind;
use super::mailbox::Attention;
use super::workers::{self, Called, MOST, State, configured};
use crate::messages::warn;
use crate::process::with_signals_blocked;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{Lock, Word, hold};
use crate::sys::is_blocked;
use crate::thread::{Parker, deferred_wake};

/// The time between two looks. Two of them and the thread's wake-up together take less
/// than 1 ms.
const LOOK: Duration = Duration::from_micros(400);
/// The number of looks without anything to see, before the watcher sleeps.
const PATIENCE: u32 = 25;
/// The number of looks before a called worker counts as late: its start hook keeps it, or it waits
/// for a core. Until then, workers with fibers leave the waiting fibers to it.
const LATE: u32 = 250;

/// What the watcher remembers of a worker: its step at the last look, unless it was idle.
pub(super) type Watched = Option<usize>;

/// The watcher's attention; null until the first need.
static ATTENTION: AtomicPtr<Attention> = AtomicPtr::new(ptr::null_mut());
static THREAD: Lock<Option<JoinHandle<()>>> = Lock::new(None);

fn attention() -> Option<&'static Attention> {
    // SAFETY: null, or leaked by `begin`, and not freed once it is stored here.
    unsafe { ATTENTION.load(Acquire).as_ref() }
}

/// Has the watcher look, since a fiber waits to begin.
#[inline]
pub(super) fn call() {
    match attention() {
        Some(attention) => attention.call(),
        None => begin(),
    }
}

#[cold]
fn begin() {
    let mut thread = hold(&THREAD);
    if let Some(attention) = attention() {
        return attention.call();
    }
    let parker = Parker::take();
    let attention = NonNull::from(Box::leak(Box::new(Attention::new(parker))));
    // SAFETY: the box was just leaked. It is freed below only if the thread does not begin.
    let watched: &'static Attention = unsafe { attention.as_ref() };
    let builder = thread::Builder::new().name("upcall-watcher".to_owned());
    match with_signals_blocked(|_| builder.spawn(|| watch(watched))) {
        Ok(handle) => {
            *thread = Some(handle);
            ATTENTION.store(attention.as_ptr(), Release);
        }
        // The next caller tries again.
        Err(error) => {
            // SAFETY: the pointer came from a box. The thread has not begun, so nobody else has it.
            drop(unsafe { Box::from_raw(attention.as_ptr()) });
            parker.give_back();
            static REPORTED: AtomicBool = AtomicBool::new(false);
            if !REPORTED.swap(true, Relaxed) {
                warn(format_args!(
                    "no thread for the watcher ({error}): until there is one, a fiber in a blocking call holds back those that have not begun. \
                     Raise the limit on threads (ulimit -u, pids.max) or on address space"
                ));
            }
        }
    }
}

/// Ends the watcher's thread, after the workers have ended.
pub(super) fn end() {
    let thread = hold(&THREAD).take();
    if let (Some(attention), Some(thread)) = (attention(), thread) {
        attention.end();
        // It does not panic.
        let _ = thread.join();
    }
}

/// The lock that keeps the watcher from beginning or ending, for forks.
pub(super) fn lock_word() -> &'static Word {
    THREAD.word()
}

/// Whether the watcher's thread exists.
pub(super) fn has_thread() -> bool {
    hold(&THREAD).is_some()
}

/// In the child of a fork: forgets the thread, which is not here. It begins again when needed.
pub(super) fn forget_thread() {
    std::mem::forget(hold(&THREAD).take());
    ATTENTION.store(ptr::null_mut(), Relaxed);
    deferred_wake::process().set_guard(None);
}

fn watch(attention: &Attention) {
    let (mut without, mut calls, mut behind) = (0, Calls::default(), Behind::new());
    let deferred = deferred_wake::process();
    deferred.set_guard(Some(call));
    while workers::lock().state != State::Closed {
        deferred.flush();
        without = if look(&mut calls) { 0 } else { without + 1 };
        behind.look();
        if without < PATIENCE {
            thread::sleep(LOOK);
        } else {
            attention.rest(behind.next(), || {
                let workers = workers::lock();
                deferred.is_any()
                    || workers.waiting().next().is_some()
                    || workers.all.iter().any(|worker| worker.queue.has_newest())
            });
            without = 0;
        }
    }
    deferred.set_guard(None);
    deferred.flush();
}

/// What the watcher remembers of workers called and not yet arrived.
#[derive(Default)]
struct Calls {
    /// The number of arrivals at the last look.
    came: usize,
    /// The number of looks without an arrival.
    looks: u32,
}

impl Calls {
    /// Whether the called workers are late.
    fn are_late(&mut self, called: usize, came: usize) -> bool {
        let none_came = called != 0 && came == self.came;
        *self = Calls { came, looks: if none_came { self.looks + 1 } else { 0 } };
        self.looks >= LATE
    }
}

/// Looks at all workers; returns whether any fiber waits to begin.
fn look(calls: &mut Calls) -> bool {
    let mut workers = workers::lock();
    let mut waits = workers.waiting().next().is_some();
    let (mut stuck, mut taken) = (Vec::new(), Vec::new());
    let mut all = std::mem::take(&mut workers.all);
    for worker in &mut all {
        waits |= worker.queue.has_newest();
        let step = (worker.queue.is_attended() && !workers.is_idle(worker.queue))
            .then(|| worker.queue.steps.load(Relaxed));
        if step.is_some() && step == worker.watched {
            stuck.push(worker.queue.thread.load(Relaxed));
            taken.extend(worker.queue.take_newest());
        }
        worker.watched = step;
    }
    workers.all = all;
    for runnable in taken {
        workers.push_waiting(runnable);
    }
    if calls.are_late(workers.called, workers.came) {
        workers.expect_nobody();
    }
    let waiting = workers.not_called_for();
    let (mut remaining, mut woken) = (waiting, Vec::new());
    while remaining != 0 {
        match workers.call_one() {
            Called::Idle(idle) => woken.push(idle),
            Called::Started => {}
            Called::Nobody => break,
        }
        remaining -= 1;
    }
    let all = workers.all.len();
    drop(workers);
    for idle in woken {
        idle.unpark();
    }
    if remaining != 0 && all < MOST {
        let blocked = stuck.into_iter().filter(|&thread| is_blocked(thread)).count();
        if all - blocked < configured() {
            // The new workers may be blocked too. Start as many as are blocked now, so that their
            // number doubles from look to look.
            start(remaining.min(blocked).min(MOST - all));
        }
    }
    waits
}

fn start(count: usize) {
    for _ in 0..count {
        let mut workers = workers::lock();
        if workers.state == State::Closed || workers.start().is_err() {
            break;
        }
    }
}
