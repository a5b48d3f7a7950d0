//! Upcalls of upcall's own: what C calls of it, and the closures that it has for C.

use stackbounds::stack_pointer;

use super::enter;
use crate::thread::{Hot, record};

/// Runs `f` as an upcall; its error is the thread's last message. The upcall that the caller belongs to is what it was, afterwards.
pub(crate) fn checked<T>(f: impl FnOnce() -> Result<T, String>) -> Option<T> {
    let hot = Hot::here();
    let upcall = hot.upcall.get();
    let result = enter(f);
    hot.upcall.set(upcall);
    let message = match result.ok()? {
        Ok(value) => return Some(value),
        Err(message) => message,
    };
    record::attach_if_new(hot, stack_pointer());
    record::set_last_panic(hot, &message);
    record::detach_if_exiting(hot);
    None
}
