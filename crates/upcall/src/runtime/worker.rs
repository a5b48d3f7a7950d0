//! One worker: the life of its thread, and its choice of the next fiber.

use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use stackbounds::stack_pointer;

use super::hooks;
use super::queue::{MAX_IDLE_CAPACITY, Queue};
use super::runnable::Runnable;
use super::workers::{IDLE, SPARE, State, TURNED_IDLE, WAITING, add_waiting, configured, lock};
use crate::crossing::attach_with_reserve;
use crate::drop_guards::drop_ignoring_panics;
use crate::process::{Mask, block_signals};
use crate::stack::{StackHeader, alternate};
use crate::sys;
use crate::thread::{Attached, RecordPin, ThreadState};

/// The life of a worker. It begins with all signals blocked. It takes `mask` once it can serve the
/// upcalls of signal handlers.
pub(super) fn work(queue: &'static Queue, mask: &Mask) {
    let thread = ThreadState::current();
    let _attached = Attached::new(thread, stack_pointer());
    // Keeps the record for as long as the queue has the thread's parker.
    let _pin = RecordPin::of(thread);
    // A handler that asks for an alternate stack must not run on a fiber's stack. Without memory
    // for an alternate stack, or for the stacks of their upcalls, handlers do without.
    let _ = (alternate::give_always(), attach_with_reserve());
    sys::set_mask(mask);
    hooks::thread_begins();
    let parker = thread.parker();
    queue.begin(parker);
    thread.set_nested_executor(Some(super::run_one));
    // It was started for a waiting fiber.
    let mut called = true;
    let is_joined = loop {
        if std::mem::take(&mut called) {
            let (runnable, other) = lock().come(queue);
            if let Some(other) = other {
                other.unpark();
            }
            if let Some(runnable) = runnable {
                drop_ignoring_panics(|| queue.run(runnable));
            }
        }
        drop_ignoring_panics(|| {
            while let Some(runnable) = next(queue) {
                queue.run(runnable);
            }
        });
        let mut workers = lock();
        if let Some(runnable) = workers.take_waiting(queue) {
            drop(workers);
            drop_ignoring_panics(|| queue.run(runnable));
            continue;
        }
        thread.set_sleeps(true);
        if queue.is_ready() {
            thread.set_sleeps(false);
            continue;
        }
        if workers.state == State::Closed {
            break true;
        }
        queue.shrink();
        workers.waiting.shrink_to(MAX_IDLE_CAPACITY);
        if queue.begun() == 0 {
            queue.forget_joins();
        }
        let spare = workers.all.len() > configured() && !queue.has_work();
        workers.idle.push(queue);
        workers.note_spare();
        if workers.state == State::Closing {
            TURNED_IDLE.notify_all();
        }
        drop(workers);
        let woken = parker.park(spare.then(|| Instant::now() + IDLE));
        thread.set_sleeps(false);
        let mut workers = lock();
        called = workers.leave_idle(queue);
        let is_needed = called || !workers.waiting.is_empty() || queue.is_ready() || queue.has_operations();
        if !woken && !is_needed && workers.all.len() > configured() {
            // Nobody joins it: its handle is dropped.
            workers.all.retain(|worker| !ptr::eq(worker.queue, queue));
            workers.note_spare();
            workers.leaving += 1;
            break false;
        }
    };
    thread.set_nested_executor(None);
    queue.end();
    hooks::thread_ends();
    block_signals();
    let mut workers = lock();
    workers.unused.push(queue);
    if !is_joined {
        workers.leaving = workers.leaving.saturating_sub(1);
        TURNED_IDLE.notify_all();
    }
}

/// Chooses what the worker runs next.
///
/// For 32 steps it prefers ready fibers, for the next 32 steps fibers not yet begun. So neither
/// kind holds the other up, and a fiber that spawns and joins many is not resumed after each.
#[inline]
fn next(queue: &'static Queue) -> Option<Runnable> {
    const STEPS: usize = 32;
    if SPARE.load(Relaxed) != 0 && queue.has_newest() && queue.newest_keeps_others() {
        share_newest(queue);
    }
    if queue.steps.load(Relaxed) & STEPS != 0 {
        queue.take_newest().or_else(|| take_waiting(queue)).or_else(|| queue.pop())
    } else {
        queue.pop().or_else(|| queue.take_newest()).or_else(|| take_waiting(queue))
    }
}

/// Shares the newest when a frame of the calling worker blocks it: another worker begins the
/// newest, if one is available. An exception is a frame that joins the newest and holds up nobody
/// else.
pub(super) fn worker_blocks(queue: &Queue) {
    if SPARE.load(Relaxed) != 0 && queue.has_newest() {
        let fiber = ThreadState::current().fiber_stack().and_then(StackHeader::fiber);
        let is_listed = fiber.is_some_and(|fiber| fiber.executor.at_end.get().is_some());
        let is_alone = queue.depth() == 1 && queue.begun() <= usize::from(is_listed);
        if !(is_alone && queue.newest_is_joined()) {
            share_newest(queue);
        }
    }
}

/// Has another worker begin the newest, if one is available.
fn share_newest(queue: &Queue) {
    let workers = lock();
    if workers.spare() != 0 {
        if let Some(newest) = queue.take_newest() {
            add_waiting(workers, newest);
        }
    }
}

fn take_waiting(queue: &Queue) -> Option<Runnable> {
    if WAITING.load(Relaxed) == 0 { None } else { lock().take_waiting(queue) }
}
