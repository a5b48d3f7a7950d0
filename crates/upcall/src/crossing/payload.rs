//! Panic messages, and panic payloads of our own.

use std::any::Any;
use std::fmt;

use crate::coroutine::Cancelled;

/// A wait ended without a result, because the host wants its thread back.
///
/// This is the error of [`wait_interruptible`](crate::wait_interruptible), and the payload of the
/// unwinding from [`wait`](crate::wait).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the wait was interrupted by the host")
    }
}

impl std::error::Error for Interrupted {}

/// The payload of the unwinding from a wait whose coroutine the host kills.
///
/// The unwinding ends with the coroutine: the code that resumed it is not unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

impl fmt::Display for Killed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the host ended the coroutine while it waited")
    }
}

impl std::error::Error for Killed {}

/// The message of a panic with this payload.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        explained(message)
    } else if let Some(message) = payload.downcast_ref::<String>() {
        explained(message)
    } else if payload.is::<Cancelled>() {
        "the fiber was dropped while it waited".to_owned()
    } else if payload.is::<Interrupted>() {
        Interrupted.to_string()
    } else if payload.is::<Killed>() {
        Killed.to_string()
    } else {
        "a panic whose payload is not a string".to_owned()
    }
}

#[cfg(not(feature = "tokio"))]
fn explained(message: &str) -> String {
    message.to_owned()
}

#[cfg(feature = "tokio")]
/// The message of a panic. If a tokio future found no runtime, adds a hint about the right code.
fn explained(message: &str) -> String {
    let what_to_write = if message.starts_with("there is no reactor running")
        || message.starts_with("there is no timer running")
    {
        "what needs tokio's runtime is to be made inside the wait, where there is one: upcall::wait(async { .. }), not \
         upcall::wait(tokio::time::sleep(..))"
    } else if message.starts_with("The Tokio context thread-local variable has been destroyed") {
        "this thread is exiting, and tokio serves nothing that is made here any more: have a task do it, and wait for that, \
         upcall::wait(handle.spawn(async { .. }))"
    } else {
        return message.to_owned();
    };
    format!("{message} (upcall: {what_to_write})")
}
