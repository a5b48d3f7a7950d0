//! Alternate stacks: where the handler of a stack overflow runs, since there is no room for it on the stack that overflowed.
//!
//! Each thread that has none gets one when it attaches, once somebody wants them. They are never unmapped but used again.

use std::cell::Cell;
use std::io;
use std::mem::zeroed;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::sys;
use crate::config::GuardPages;
use crate::sync;

/// Room for a report, and for the handlers of a host that get their turn after it.
const SIZE: usize = 64 << 10;

static WANTED: AtomicBool = AtomicBool::new(false);
/// Low ends of those that no thread has.
static IDLE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

thread_local! {
    /// The low end of the one that the thread has from here, or 0.
    static GIVEN: Cell<usize> = const { Cell::new(0) };
}

/// Holds the idle ones as they are.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    sync::lock(&IDLE)
}

/// From now on, threads get one.
pub(crate) fn want() {
    WANTED.store(true, Relaxed);
}

/// Gives the calling thread an alternate stack, if one is wanted and it has none.
pub(crate) fn give() -> io::Result<()> {
    if !WANTED.load(Relaxed) || current()?.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    let idle = sync::lock(&IDLE).pop();
    let low = idle.or_else(map).ok_or(io::ErrorKind::OutOfMemory)?;
    change(&libc::stack_t { ss_sp: low as *mut _, ss_size: SIZE, ss_flags: 0 })?;
    GIVEN.set(low);
    Ok(())
}

/// Takes it back from the calling thread, which is exiting. One that its handlers are on, or that the host has taken away, stays what it is.
pub(crate) fn take_back() {
    let low = GIVEN.replace(0);
    let is_ours = low != 0 && current().is_ok_and(|stack| stack.ss_sp as usize == low);
    // The size is for systems that check it though it does not matter.
    let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_size: SIZE, ss_flags: libc::SS_DISABLE };
    if is_ours && change(&none).is_ok() {
        sync::lock(&IDLE).push(low);
    }
}

fn map() -> Option<usize> {
    let page = sys::page_size();
    let guard = sys::reserve(page + SIZE, page)?;
    // SAFETY: the mapping is new, and its lowest page is never used.
    unsafe { sys::guard(guard, page, GuardPages::Mprotect) };
    Some(guard as usize + page)
}

fn current() -> io::Result<libc::stack_t> {
    // SAFETY: all-zero is a valid `stack_t`: a null pointer and integers.
    let mut stack: libc::stack_t = unsafe { zeroed() };
    // SAFETY: a null first argument changes nothing; the second is valid for writing one `stack_t`.
    match unsafe { libc::sigaltstack(ptr::null(), &mut stack) } {
        0 => Ok(stack),
        _ => Err(io::Error::last_os_error()),
    }
}

fn change(stack: &libc::stack_t) -> io::Result<()> {
    // SAFETY: it is none, or memory of ours that only this thread's handlers will use.
    match unsafe { libc::sigaltstack(stack, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
