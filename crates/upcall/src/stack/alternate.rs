//! Alternate signal stacks, for the handler of a stack overflow: the overflowed stack has no room.
//!
//! When reports of faults are wanted, each attaching thread without an alternate stack gets one. A
//! worker always gets one, since the stacks of its fibers are small. Alternate stacks are never
//! unmapped but used again.

use std::cell::Cell;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::sync::{self, Lock, Word};
use crate::sys;

/// Room for a report, and for the host's handlers called after it, in bytes.
const SIZE: usize = 64 << 10;

/// Whether attaching threads get alternate stacks.
static WANTED: AtomicBool = AtomicBool::new(false);
/// The low ends of the alternate stacks in use by no thread.
static IDLE: Lock<Vec<usize>> = Lock::new(Vec::new());

thread_local! {
    /// The low end of the alternate stack given to this thread by this module, or 0.
    static GIVEN: Cell<usize> = const { Cell::new(0) };
}

/// The lock of the idle alternate stacks, for forks.
pub(crate) fn lock_word() -> &'static Word {
    IDLE.word()
}

/// From now on, attaching threads get alternate stacks.
pub(crate) fn want() {
    WANTED.store(true, Relaxed);
}

/// Gives the calling thread an alternate stack, if these are wanted and it has none.
pub(crate) fn give() -> io::Result<()> {
    if WANTED.load(Relaxed) { give_always() } else { Ok(()) }
}

/// Gives the calling thread an alternate stack, if it has none. If handlers run on the stack in use
/// (on Windows), keeps room for them there.
pub(crate) fn give_always() -> io::Result<()> {
    sys::faults::keep_room();
    if !sys::lacks_alternate_stack()? {
        return Ok(());
    }
    let idle = sync::hold(&IDLE).pop();
    let low = idle.or_else(map).ok_or(io::ErrorKind::OutOfMemory)?;
    sys::set_alternate_stack(low, SIZE)?;
    GIVEN.set(low);
    Ok(())
}

/// Takes the alternate stack back from the calling thread, which is exiting.
///
/// It stays in use if handlers of the thread run on it, or if the host has replaced it.
pub(crate) fn take_back() {
    let low = GIVEN.replace(0);
    if low != 0 && sys::remove_alternate_stack(low, SIZE) {
        sync::hold(&IDLE).push(low);
    }
}

/// Maps an alternate stack with a guard page, and returns its low end.
fn map() -> Option<usize> {
    let page = sys::page_size();
    let (guard, locks) = sys::reserve(page + SIZE, page)?;
    // SAFETY: the mapping is new, and its lowest page will never be used.
    unsafe { sys::guard(guard, page) };
    sys::lock(locks, guard.wrapping_add(page), SIZE);
    Some(guard as usize + page)
}
