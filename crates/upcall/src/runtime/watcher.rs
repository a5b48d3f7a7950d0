//! The watcher: a thread that looks whether workers are stuck, in a blocking C call mostly, while fibers wait to begin.
//!
//! It sleeps while none waits. A worker that has not finished a step for two looks is *stuck*: what it keeps is taken over. If it
//! is blocked in the kernel, too, another worker is started in its place; one that computes, or waits for a core, has all the company it can use.

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::handover::Attention;
use super::sys::{is_blocked, with_signals_blocked};
use super::workers::{self, MOST, State, configured};
use crate::quiet::report;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::lock;
use crate::thread::Parker;

/// Between two looks: two of them, and what the thread's waking takes, are less than 1 ms.
const LOOK: Duration = Duration::from_micros(400);
/// Looks without anything to see, after which it sleeps.
const PATIENCE: u32 = 25;

/// What the watcher remembers of a worker that is not idle: at which step it was.
pub(super) type Watched = Option<usize>;

/// The watcher's, from when it is needed first; null until then.
static ATTENTION: AtomicPtr<Attention> = AtomicPtr::new(ptr::null_mut());
static THREAD: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

fn attention() -> Option<&'static Attention> {
    // SAFETY: null, or what `begin` leaked.
    unsafe { ATTENTION.load(Acquire).as_ref() }
}

/// A fiber waits to begin: the watcher is to look.
#[inline]
pub(super) fn call() {
    match attention() {
        Some(attention) => attention.call(),
        None => begin(),
    }
}

#[cold]
fn begin() {
    let mut thread = lock(&THREAD);
    if let Some(attention) = attention() {
        return attention.call();
    }
    let attention: &'static Attention = Box::leak(Box::new(Attention::new(Parker::take())));
    let builder = thread::Builder::new().name("upcall-watcher".to_owned());
    match with_signals_blocked(|| builder.spawn(|| watch(attention))) {
        Ok(handle) => *thread = Some(handle),
        Err(error) => report(format_args!(
            "no thread for the watcher ({error}): a fiber in a blocking call holds back those that have not begun"
        )),
    }
    ATTENTION.store(ptr::from_ref(attention).cast_mut(), Release);
}

/// Ends its thread, when the workers have ended.
pub(super) fn end() {
    let thread = lock(&THREAD).take();
    if let (Some(attention), Some(thread)) = (attention(), thread) {
        attention.end();
        // It does not panic.
        let _ = thread.join();
    }
}

/// Keeps it from being begun or ended.
pub(super) fn hold_lock() -> impl Sized + 'static {
    lock(&THREAD)
}

/// In the child of a fork: its thread is not here, and begun when it is needed.
pub(super) fn forget_thread() {
    std::mem::forget(lock(&THREAD).take());
    ATTENTION.store(ptr::null_mut(), Relaxed);
}

fn watch(attention: &Attention) {
    let mut without = 0;
    while workers::lock().state != State::Closed {
        without = if look() { 0 } else { without + 1 };
        if without < PATIENCE {
            thread::sleep(LOOK);
        } else {
            attention.rest(|| {
                let workers = workers::lock();
                workers.waiting().next().is_some()
                    || workers.all.iter().any(|worker| worker.queue.has_newest())
            });
            without = 0;
        }
    }
}

/// Looks at all workers; says whether any fiber waits to begin.
fn look() -> bool {
    let mut workers = workers::lock();
    let mut waits = workers.waiting().next().is_some();
    let (mut stuck, mut taken) = (Vec::new(), Vec::new());
    let mut all = std::mem::take(&mut workers.all);
    for worker in &mut all {
        waits |= worker.queue.has_newest();
        let step = (!workers.is_idle(worker.queue)).then(|| worker.queue.steps.load(Relaxed));
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
    let waiting = workers.waiting().count();
    let woken: Vec<_> = (0..waiting).map_while(|_| workers.pop_idle()).collect();
    let left = waiting - woken.len();
    let all = workers.all.len();
    drop(workers);
    for idle in woken {
        idle.unpark();
    }
    if left != 0 && all < MOST {
        let blocked = stuck.into_iter().filter(|&thread| is_blocked(thread)).count();
        if all - blocked < configured() {
            // Those begun now may be blocked too: as many as are, so that their number doubles from look to look.
            start(left.min(blocked).min(MOST - all));
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
