//! Attaching a thread before its first upcall.

use stackbounds::stack_pointer;

use super::Refusal;
use super::placement::from_pool;
use crate::stack::pool::{self, Purpose};
use crate::stack::service;
use crate::thread::{Attached, ThreadState};

/// Attaches the calling thread ahead of its first upcall, and prepares it for signal handlers.
///
/// The thread keeps in reserve a stack and room for some downcalls. They serve upcalls from signal
/// handlers on an alternate stack. Nothing can be allocated there, so such upcalls are
/// [refused](Refusal::SignalHandler) without a reserve.
///
/// **Locks:** upcall does not protect the body of a handler's upcall. The handler may have
/// interrupted code that holds any lock, for instance the allocator's, and even a panic needs that
/// one.
///
/// Handlers on the thread's own stack look like any other code. If the thread is attached and there
/// is enough room, their upcalls run in place. Otherwise they take the locks they need, and the
/// interrupted code may hold these. On an undescribed coroutine of the host's, they take pooled
/// stacks: this call maps address space for 16 of them ahead, without memory.
///
/// ```
/// upcall::attach()?;
/// # Ok::<(), upcall::Refusal>(())
/// ```
///
/// # Errors
/// If there is no memory for the stack ([`Refusal::OutOfMemory`]).
pub fn attach() -> Result<(), Refusal> {
    attach_with_reserve()?;
    if let Some(slot_size) = pool::slot_size_for(ThreadState::current().spare_stack()) {
        service::run(|| pool::map_ahead(slot_size));
    }
    Ok(())
}

/// Attaches a worker: does the same as [`attach`], but maps no stacks ahead.
///
/// All stacks of a worker are known, so its handlers need none.
pub(crate) fn attach_with_reserve() -> Result<(), Refusal> {
    let sp = stack_pointer();
    let thread = ThreadState::current();
    let _attached = Attached::new(thread, sp);
    thread.record().inspect(|record| record.reserve_places());
    if !thread.has_reserve() {
        let stack = match thread.take_spare() {
            Some(spare) => spare,
            None => from_pool(thread, thread.spare_stack(), sp, Purpose::Upcall)?,
        };
        thread.put_reserve(stack);
    }
    Ok(())
}
