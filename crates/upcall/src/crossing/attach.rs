//! Attaching a thread before its first upcall.

use stackbounds::stack_pointer;

use super::Refusal;
use super::place::from_pool;
use crate::stack::pool::Purpose;
use crate::thread::{Hot, record};

/// Attaches the calling thread now rather than at its first upcall, and keeps a stack and room for some downcalls in reserve, with which
/// upcalls from its signal handlers can be served: on an alternate stack, where nothing can be allocated, they are
/// [refused](Refusal::SignalHandler) otherwise.
///
/// What a handler's upcall does is its own affair: it may have interrupted code that holds any lock, that of the allocator for instance, which panics
/// need too. Handlers on the thread's own stack look like any other code: their upcalls run in place, if the thread has attached and there is room, and
/// otherwise take what locks they need, which the interrupted code may hold.
///
/// ```
/// upcall::attach()?;
/// # Ok::<(), upcall::Refusal>(())
/// ```
///
/// # Errors
/// When there is no memory for the stack, or as many are in use as are [allowed](Refusal::TooManyOpen).
pub fn attach() -> Result<(), Refusal> {
    let sp = stack_pointer();
    let hot = Hot::here();
    record::attach_if_new(hot, sp);
    if !hot.calls.has_places() {
        record::find_call_places(hot, sp);
    }
    let spare = match hot.take_spare() {
        Some(spare) => spare,
        None => from_pool(hot, hot.min_stack(), sp, Purpose::Upcall)?,
    };
    hot.put_spare(spare);
    record::detach_if_exiting(hot);
    Ok(())
}
