//! Foreign wakers, called and dropped without harm to others if they panic.
//!
//! A waker is its executor's code. It runs on whatever thread makes a future ready: a timer's, a
//! worker's, one of `blocking`. It may panic or block there. Rule: **no foreign waker is called,
//! cloned or dropped under a lock of upcall, and none of its panics passes through upcall's code.**

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use crate::drop_guards::IgnoreDropPanic;
use crate::messages::warn;

/// Calls a waker. Reports its panic.
pub(crate) fn wake(waker: Waker) {
    catching(|| waker.wake());
}

/// Drops a waker, if there is one. Reports its panic.
pub(crate) fn discard(waker: Option<Waker>) {
    if let Some(waker) = waker {
        catching(|| drop(waker));
    }
}

/// Runs a waker's code. If it panics, reports the first such panic of the process.
///
/// Drops the panic's payload. A panic of this drop is ignored, and its payload leaked.
pub(crate) fn catching(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        report_panic();
        drop(IgnoreDropPanic::new(payload));
    }
}

/// Reports a waker's panic, once for the process.
#[cold]
pub(crate) fn report_panic() {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if !REPORTED.swap(true, Relaxed) {
        warn(
            "a waker panicked (the message of the panic is above): what it was to wake may never go on, all else does. Wakers belong to the executor that \
             polled the future; they must not panic, also when their executor is gone. Later panics of wakers are not reported",
        );
    }
}
