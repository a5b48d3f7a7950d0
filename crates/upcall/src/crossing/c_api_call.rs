//! Upcalls of upcall's own: its C functions, and the callbacks made for C.

use stackbounds::stack_pointer;

use super::{enter, keep_message};
use crate::thread::{Attached, ThreadState};

/// Runs `f` as an upcall, and keeps its error as the last message.
///
/// Afterwards, the caller's upcall is the current one again.
pub(crate) fn run_c_api<T>(f: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let thread = ThreadState::current();
    let upcall = thread.upcall.get();
    let result = enter(f);
    thread.upcall.set(upcall);
    let message = match result.ok()? {
        Ok(value) => return Some(value),
        Err(message) => message,
    };
    let sp = stack_pointer();
    let _attached = Attached::new(thread, sp);
    keep_message(thread, sp, &message);
    None
}
