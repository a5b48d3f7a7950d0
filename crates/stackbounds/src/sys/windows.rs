//! Windows 8 and later: `GetCurrentThreadStackLimits`, and sleeping by `WaitOnAddress`.
//!
//! The system describes a stack in the thread's TEB. Switches of fibers, and those of many
//! coroutine libraries, write the TEB. So its answer is for the stack in use. Before a thread's
//! first code runs, the loader calls us: then the stack in use is the thread's own. A library
//! loaded later learns of no thread's beginning. There, the thread's first question must come on
//! its own stack.
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

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::AtomicU32;
use std::time::Instant;

use windows_sys::Win32::Foundation::{ERROR_TIMEOUT, FALSE, GetLastError};
use windows_sys::Win32::System::LibraryLoader::GetModuleHandleW;
use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};
use windows_sys::Win32::System::SystemServices::{DLL_PROCESS_ATTACH, DLL_THREAD_ATTACH};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcessId, GetCurrentThreadId, GetCurrentThreadStackLimits, INFINITE, IsThreadAFiber,
    SetThreadStackGuarantee, WaitOnAddress, WakeByAddressAll, WakeByAddressSingle,
};

pub use super::portable::*;
use super::{Ended, ThreadStack};

pub const TELLS_OF_STACK_IN_USE: bool = true;

/// A range reserved for a stack: its lowest address, and one past its highest.
type Reserved = (usize, usize);

std::thread_local! {
    /// The thread's own stack, noted when the thread began; `(0, 0)` if it began without us.
    static NOTED: Cell<Reserved> = const { Cell::new((0, 0)) };
}

/// Has the loader call `on_thread_event` when a thread begins or ends.
#[used]
#[unsafe(link_section = ".CRT$XLC")]
static ON_THREAD_EVENT: unsafe extern "system" fn(*mut c_void, u32, *mut c_void) = on_thread_event;

/// Notes the stack of a thread that begins. That of the process's first thread is noted by the
/// program only: a library may be loaded by a coroutine. Without native thread-locals, nothing is
/// noted: each thread of the host would allocate.
///
/// # Safety
/// For the loader alone.
unsafe extern "system" fn on_thread_event(module: *mut c_void, reason: u32, _reserved: *mut c_void) {
    const NATIVE: bool = cfg!(any(target_env = "msvc", target_abi = "llvm"));
    // SAFETY: no name asks for the program's module.
    let is_program = || module == unsafe { GetModuleHandleW(ptr::null()) };
    if NATIVE && (reason == DLL_THREAD_ATTACH || reason == DLL_PROCESS_ATTACH && is_program()) {
        NOTED.set(stack_in_use());
    }
}

fn stack_in_use() -> Reserved {
    let (mut low, mut high) = (0, 0);
    // SAFETY: both pointers are valid for writing.
    unsafe { GetCurrentThreadStackLimits(&mut low, &mut high) };
    (low, high)
}

/// The thread's own stack; `None` if it is unknown.
///
/// It is unknown on a thread converted to a fiber, if it was not noted. A fiber cannot tell its own
/// stack from the thread's, and the host may delete it.
pub fn thread_stack(_sp: usize) -> Option<ThreadStack> {
    // From a static library, a linker takes only the parts to which something else refers.
    core::hint::black_box(&ON_THREAD_EVENT);
    let in_use = stack_in_use();
    let (lowest, high) = match NOTED.get() {
        // SAFETY: the call has no arguments and reads the TEB.
        (0, 0) if unsafe { IsThreadAFiber() } != FALSE => return None,
        (0, 0) => in_use,
        noted => noted,
    };
    // On another stack, the guarantee is unknown. It is asked for again on this one.
    let mut guaranteed = 0;
    if high == in_use.1 {
        // SAFETY: the pointer is valid for writing. A guarantee of 0 bytes asks for the present
        // one, and changes nothing.
        unsafe { SetThreadStackGuarantee(&mut guaranteed) };
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
    if stack_in_use().1 == known.high { thread_stack(sp).unwrap_or(known) } else { known }
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
