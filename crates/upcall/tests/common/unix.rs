//! What the tests ask of a Unix. `windows.rs` has the same items.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use upcall::LocalRuntime;

use super::{DataFirst, DataLast};

/// The descriptor for the loop of a runtime's thread.
pub fn event_of(runtime: &LocalRuntime) -> BorrowedFd<'_> {
    runtime.fd()
}

/// The descriptor for the loop of the calling thread's coroutines.
pub fn event_of_coroutines() -> BorrowedFd<'static> {
    upcall::coroutines::fd().unwrap()
}

/// Whether the event would wake the host's loop. Waits for that, up to `milliseconds`.
pub fn is_signalled(event: BorrowedFd<'_>, milliseconds: c_int) -> bool {
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer and the count describe one valid entry.
    let ready = unsafe { libc::poll(&mut poll, 1, milliseconds) };
    assert!(ready >= 0);
    poll.revents & libc::POLLIN != 0
}

/// Sorts by C's function for comparators with data. It calls one of the two comparators.
///
/// # Safety
/// The comparators may be called with addresses of elements, and with `data`.
pub unsafe fn sort<T>(elements: &mut [T], _: DataFirst, compare: DataLast, data: *mut c_void) {
    unsafe extern "C" {
        // libc has it for glibc alone.
        fn qsort_r(base: *mut c_void, number: usize, size: usize, compare: DataLast, data: *mut c_void);
    }
    // SAFETY: the arguments describe the slice, and the caller guarantees the rest.
    unsafe { qsort_r(elements.as_mut_ptr().cast(), elements.len(), size_of::<T>(), compare, data) }
}

/// What a thread of C ends with.
pub type Exit = *mut c_void;

/// Runs `function(data)` on a new thread of C's, and returns its value.
pub fn on_thread_of_c(function: unsafe extern "C" fn(*mut c_void) -> Exit, data: *mut c_void) -> usize {
    // The `libc` crate wants a safe start function. Ours is safe to call with any data, since it
    // looks the data up.
    type Start = extern "C" fn(*mut c_void) -> Exit;
    let mut thread = 0 as libc::pthread_t;
    let mut value = ptr::null_mut();
    // SAFETY: the two types differ in `unsafe` alone, so both have the same ABI.
    let function =
        unsafe { std::mem::transmute::<unsafe extern "C" fn(*mut c_void) -> Exit, Start>(function) };
    // SAFETY: the function takes one pointer, and the thread is joined before this function
    // returns.
    unsafe {
        assert_eq!(libc::pthread_create(&mut thread, ptr::null(), function, data), 0);
        assert_eq!(libc::pthread_join(thread, &mut value), 0);
    }
    value.addr()
}
