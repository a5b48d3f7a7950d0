//! For loom: a sleeper yields to other threads until the number changes.

use std::time::Instant;

use ::loom::sync::atomic::AtomicU32;
use ::loom::sync::atomic::Ordering::Relaxed;

use super::Ended;

pub(crate) fn sleep_while(number: &AtomicU32, value: u32, _deadline: Option<Instant>) -> Ended {
    while number.load(Relaxed) == value {
        ::loom::thread::yield_now();
    }
    Ended::Changed
}

pub(crate) fn wake(_number: &AtomicU32) {}
