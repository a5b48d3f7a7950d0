//! For loom: a sleeper gives way to other threads until the number changes.

use std::time::Instant;

use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::Relaxed;

pub fn while_is(number: &AtomicU32, value: u32, _deadline: Option<Instant>) -> bool {
    while number.load(Relaxed) == value {
        loom::thread::yield_now();
    }
    true
}

pub fn wake(_number: &AtomicU32) {}
