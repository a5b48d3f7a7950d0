//! The host's hooks at the start and end of our threads, for threads that run its code.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::config::settings;
use crate::drop_guards::IgnoreDropPanic;
use crate::messages::warn;

/// Calls the start hook of a worker or a thread of `blocking`. The thread has run nothing else yet.
pub(super) fn thread_begins() {
    run("worker_start", settings().worker_start);
}

/// Calls the end hook. The thread runs nothing else afterwards.
pub(super) fn thread_ends() {
    run("worker_end", settings().worker_end);
}

fn run(name: &str, hook: Option<fn()>) {
    let Some(hook) = hook else { return };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(hook)) {
        warn(format_args!(
            "the hook {name} panicked (the message of the panic is above): the thread goes on as if \
             it had returned"
        ));
        drop(IgnoreDropPanic::new(payload));
    }
}
