//! Windows 8 and later: `GetCurrentThreadStackLimits`, and sleeping by `WaitOnAddress`.
//!
//! The system describes a stack in the thread's TEB. Switches of fibers, and those of many
//! coroutine libraries, write the TEB. So its answer is for the stack in use.
//!
//! A thread's stack is reserved as a whole, and committed page by page:
//!
//! ```text
//!  high ─┬─ StackBase
//!        │    committed
//!        ├─ StackLimit
//!        │    guard page: a touch commits it, and makes the page below the guard
//!        ├─
//!        │    reserved
//!   low ─┼─ lowest page that a touch commits
//!        │    a touch here raises the overflow exception, and commits the guaranteed bytes for its
//!        │    handlers
//!        ├─
//!        │    lowest page, never committed
//!        └─ DeallocationStack
//! ```
//!
//! A touch of the guard page from another stack is a fault: only the thread running on a stack
//! makes it grow. So nothing here reads a stack. The system commits the rest when it is needed, and
//! raises the overflow exception early if its memory is exhausted.
//!
//! Signal stacks and forks do not exist.

use core::ptr;
use core::sync::atomic::AtomicU32;
use std::time::Instant;

use windows_sys::Win32::Foundation::{ERROR_TIMEOUT, FALSE, GetLastError};
use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcessId, GetCurrentThreadId, GetCurrentThreadStackLimits, INFINITE, IsThreadAFiber,
    SetThreadStackGuarantee, WaitOnAddress, WakeByAddressAll, WakeByAddressSingle,
};

pub use super::portable::*;
use super::{Ended, ThreadStack};

pub const TELLS_OF_STACK_IN_USE: bool = true;

/// The thread's own stack; `None` on a thread converted to a fiber.
///
/// A fiber cannot tell its own stack from the thread's, and the host may delete it.
pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    // SAFETY: the call has no arguments and reads the TEB.
    if unsafe { IsThreadAFiber() } != FALSE {
        return None;
    }
    let (mut lowest, mut high, mut guaranteed) = (0, 0, 0);
    // SAFETY: all pointers are valid for writing. A guarantee of 0 bytes asks for the present one,
    // and changes nothing.
    unsafe {
        GetCurrentThreadStackLimits(&mut lowest, &mut high);
        SetThreadStackGuarantee(&mut guaranteed);
    }
    let low = lowest + never_usable(guaranteed as usize, page_size());
    (low < high).then_some(ThreadStack { low, high, may_grow_to: low, limit: None })
}

/// The bytes at the low end of a stack in which no frame can be, with a guarantee for handlers of
/// `guaranteed` bytes.
///
/// These are the lowest page, the guaranteed bytes, and the page whose touch raises the overflow
/// exception. A thread without a guarantee may get one of two pages.
fn never_usable(guaranteed: usize, page: usize) -> usize {
    guaranteed.next_multiple_of(page).max(2 * page) + 2 * page
}

/// Asks for the guarantee again, which the thread may have raised.
///
/// If the stack in use is another one, the known answer stays.
pub fn ask_again(known: ThreadStack, sp: usize) -> ThreadStack {
    thread_stack(sp).filter(|now| now.high == known.high).unwrap_or(known)
}

pub fn page_size() -> usize {
    let mut info = SYSTEM_INFO::default();
    // SAFETY: `info` is valid for writing; the call cannot fail.
    unsafe { GetSystemInfo(&mut info) };
    info.dwPageSize as usize
}

/// Sleeps while `number` is `value`, until the deadline, or until it is woken.
///
/// The system counts in milliseconds. It knows no deadline beyond 49 days, and its clock is not
/// `Instant`'s. So the deadline is compared after each sleep.
pub fn sleep_while(number: &AtomicU32, value: u32, deadline: Option<Instant>) -> Ended {
    loop {
        let timeout = deadline.map_or(INFINITE, |deadline| {
            let remaining = deadline.saturating_duration_since(Instant::now());
            remaining.as_nanos().div_ceil(1_000_000).min(u128::from(INFINITE - 1)) as u32
        });
        // SAFETY: the system reads the number and the value. Both live during the call, and have
        // the size given.
        let failed = unsafe {
            let (address, size) = (number.as_ptr().cast_const(), size_of::<u32>());
            WaitOnAddress(address.cast(), ptr::from_ref(&value).cast(), size, timeout) == FALSE
        };
        // SAFETY: the call reads a word of the thread.
        if !failed || unsafe { GetLastError() } != ERROR_TIMEOUT {
            return Ended::Changed;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ended::TimedOut;
        }
    }
}

/// Wakes one sleeper.
pub fn wake(number: &AtomicU32) {
    // SAFETY: the system does not access the number: its address only identifies the sleepers.
    unsafe { WakeByAddressSingle(number.as_ptr().cast_const().cast()) };
}

pub fn wake_all(number: &AtomicU32) {
    // SAFETY: as in `wake`.
    unsafe { WakeByAddressAll(number.as_ptr().cast_const().cast()) };
}

pub fn thread_number() -> i32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { GetCurrentThreadId() as i32 }
}

pub fn process_number() -> i32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { GetCurrentProcessId() as i32 }
}
