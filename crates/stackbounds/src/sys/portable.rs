//! The functions of a system of which nothing is known.
//!
//! Bounds are estimated, except on registered stacks, and an answer is never checked later. One
//! mutex and one condition variable serve all numbers. There are no forks.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::{Activity, Ended, ThreadStack};

pub const TELLS_OF_STACK_IN_USE: bool = false;

pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    None
}

pub fn ask_again(known: ThreadStack, _sp: usize) -> ThreadStack {
    known
}

pub fn is_one_mapping(_low: usize, _sp: usize) -> bool {
    true
}

pub fn is_readable(_address: usize) -> bool {
    true
}

pub fn page_size() -> usize {
    4096
}

/// Whether `sp` is on the thread's alternate signal stack: there is none.
pub fn on_alternate_stack(_sp: usize) -> bool {
    false
}

static LOCK: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

/// Sleeps while `number` is `value`, until the deadline, or until it is woken.
pub fn sleep_while(number: &AtomicU32, value: u32, deadline: Option<Instant>) -> Ended {
    let mut held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    while number.load(Relaxed) == value {
        held = match deadline {
            None => CHANGED.wait(held).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let remaining = deadline.saturating_duration_since(Instant::now());
                if remaining.is_zero() {
                    return Ended::TimedOut;
                }
                CHANGED.wait_timeout(held, remaining).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
    Ended::Changed
}

/// Wakes at least one sleeper.
pub fn wake(number: &AtomicU32) {
    wake_all(number);
}

pub fn wake_all(_number: &AtomicU32) {
    drop(LOCK.lock());
    CHANGED.notify_all();
}

/// Always 0: thread numbers tell nothing here.
pub fn thread_number() -> i32 {
    0
}

pub fn first_thread() -> Option<usize> {
    None
}

pub fn activity_of(_thread: i32) -> Activity {
    Activity::Unknown
}

pub fn make_wiped_page() -> Option<&'static AtomicU32> {
    None
}

pub fn process_number() -> i32 {
    1
}

pub fn thread_handle() -> usize {
    0
}

pub fn watch(_before: extern "C" fn(), _in_parent: extern "C" fn(), _in_child: extern "C" fn()) {}
