//! A mutex and a condition variable for all numbers.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

static LOCK: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

pub fn while_is(number: &AtomicU32, value: u32, deadline: Option<Instant>) -> bool {
    let mut held = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    while number.load(Relaxed) == value {
        held = match deadline {
            None => CHANGED.wait(held).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                CHANGED.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
    true
}

pub fn wake(_number: &AtomicU32) {
    drop(LOCK.lock());
    CHANGED.notify_all();
}
