//! What the tests ask of Windows. `unix.rs` has the same items, except for the last two.

use std::arch::asm;
use std::ffi::c_void;
use std::ops::Range;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::{mem, ptr};

use upcall::LocalRuntime;
use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{CreateThread, GetExitCodeThread, INFINITE, WaitForSingleObject};

use super::{DataFirst, DataLast};

/// The event object for the loop of a runtime's thread.
pub fn event_of(runtime: &LocalRuntime) -> BorrowedHandle<'_> {
    runtime.event_handle()
}

/// The event object for the loop of the calling thread's coroutines.
pub fn event_of_coroutines() -> BorrowedHandle<'static> {
    upcall::coroutines::event_handle().unwrap()
}

/// Whether the event would wake the host's loop. Waits for that, up to `milliseconds`.
pub fn is_signalled(event: BorrowedHandle<'_>, milliseconds: u32) -> bool {
    // SAFETY: the handle is an event's.
    let result = unsafe { WaitForSingleObject(event.as_raw_handle(), milliseconds) };
    assert!(matches!(result, WAIT_OBJECT_0 | WAIT_TIMEOUT));
    result == WAIT_OBJECT_0
}

/// Sorts by C's function for comparators with data. It calls one of the two comparators.
///
/// # Safety
/// The comparators may be called with addresses of elements, and with `data`.
pub unsafe fn sort<T>(elements: &mut [T], compare: DataFirst, _: DataLast, data: *mut c_void) {
    unsafe extern "C" {
        fn qsort_s(base: *mut c_void, number: usize, size: usize, compare: DataFirst, data: *mut c_void);
    }
    // SAFETY: the arguments describe the slice, and the caller guarantees the rest.
    unsafe { qsort_s(elements.as_mut_ptr().cast(), elements.len(), size_of::<T>(), compare, data) }
}

/// What a thread of C ends with.
pub type Exit = u32;

/// Runs `function(data)` on a new thread of C's, and returns its value.
pub fn on_thread_of_c(function: unsafe extern "C" fn(*mut c_void) -> Exit, data: *mut c_void) -> usize {
    type Start = unsafe extern "system" fn(*mut c_void) -> Exit;
    // SAFETY: on x86-64, the two calling conventions are the same.
    let function = unsafe { mem::transmute::<unsafe extern "C" fn(*mut c_void) -> Exit, Start>(function) };
    let mut exit = 0;
    // SAFETY: the function takes one pointer, and the thread ends before this function returns. Its
    // handle is new, so nobody else owns it.
    unsafe {
        let thread = CreateThread(ptr::null(), 0, Some(function), data, 0, ptr::null_mut());
        assert!(!thread.is_null());
        let thread = OwnedHandle::from_raw_handle(thread);
        assert_eq!(WaitForSingleObject(thread.as_raw_handle(), INFINITE), WAIT_OBJECT_0);
        assert_ne!(GetExitCodeThread(thread.as_raw_handle(), &mut exit), 0);
    }
    exit as usize
}

/// The bounds of the stack in use, according to the thread environment block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Teb {
    /// `StackBase`.
    pub base: usize,
    /// `StackLimit`: the lowest committed address.
    pub limit: usize,
    /// `DeallocationStack`: the stack may grow down to here.
    pub low: usize,
}

impl Teb {
    /// The calling thread's words, now.
    #[inline(never)]
    pub fn now() -> Self {
        let (base, limit, low);
        // SAFETY: reads words of the thread environment block, present in every thread.
        unsafe {
            asm!(
                "mov {}, gs:[8]", "mov {}, gs:[0x10]", "mov {}, gs:[0x1478]",
                out(reg) base, out(reg) limit, out(reg) low,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self { base, limit, low }
    }

    /// The calling thread's words. Asserts that they describe the stack in use.
    #[inline(never)]
    #[track_caller]
    pub fn right() -> Self {
        let (teb, sp) = (Self::now(), stackbounds::stack_pointer());
        assert!(teb.low <= teb.limit && (teb.limit..teb.base).contains(&sp), "{teb:x?}, SP {sp:#x}");
        teb
    }

    /// The addresses of the stack.
    pub fn stack(&self) -> Range<usize> {
        self.low..self.base
    }
}

/// Calls `f` at a depth of `bytes`.
#[inline(never)]
pub fn deep(bytes: usize, f: &mut dyn FnMut()) {
    let page = std::hint::black_box([1_u8; 4096]);
    if bytes < page.len() {
        f()
    } else {
        deep(bytes - page.len(), f)
    }
    assert_eq!(page[7], 1);
}
