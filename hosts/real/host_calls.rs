//! Calls between C and Rust, in both directions, for the hosts PHP and Python. Each library
//! includes this file.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use upcall::{StackChoice, UpcallError, downcall, enter, entry};

/// A C function with one argument.
pub type Callback = extern "C" fn(*mut c_void) -> c_int;
type Compare = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

/// The answer after a failure.
pub const FAILED: c_int = -1;
/// The answer instead of a number, without a failure.
pub const NONE: c_int = -2;

/// The answer to C.
pub fn or_failed(result: Result<c_int, UpcallError>) -> c_int {
    result.unwrap_or(FAILED)
}

/// Makes a downcall in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn host_call(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall(|| function(argument))))
}

/// Makes a downcall in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn host_call_pooled(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| function(argument))))
}

/// Makes a downcall and catches the panic raised there. Returns -2 after a panic, with the message
/// copied.
///
/// # Safety
/// `message` must be valid for writes of `size` bytes, and `size` must not be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_catch(
    function: Callback,
    argument: *mut c_void,
    message: *mut c_char,
    size: usize,
) -> c_int {
    or_failed(enter(|| {
        let caught = catch_unwind(AssertUnwindSafe(|| downcall(|| function(argument))));
        caught.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().expect("host_panic's");
            let length = text.len().min(size - 1);
            // SAFETY: the caller guarantees that `message` is valid for writes of `size` bytes. At
            // most `size - 1` bytes are copied, so the final 0 fits.
            unsafe {
                ptr::copy_nonoverlapping(text.as_ptr().cast(), message, length);
                message.add(length).write(0);
            }
            NONE
        })
    }))
}

/// Panics with `message`.
///
/// # Safety
/// `message` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_panic(message: *const c_char) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller guarantees that `message` is a C string.
        panic!("{}", unsafe { CStr::from_ptr(message) }.to_str().expect("UTF-8"))
    }))
}

/// The argument passed through `qsort_r` to `compare`.
struct Comparison(Compare, *mut c_void);

extern "C" fn compare(a: *const c_void, b: *const c_void, comparison: *mut c_void) -> c_int {
    or_failed(enter(|| {
        // SAFETY: qsort_r passes elements of an array of `c_int`, and the pointer given by
        // `host_sort`.
        let (a, b, comparison) = unsafe {
            (a.cast::<c_int>().read(), b.cast::<c_int>().read(), &*comparison.cast::<Comparison>())
        };
        downcall(|| comparison.0(a, b, comparison.1))
    }))
}

/// Sorts by C's `qsort_r`. Its comparisons are upcalls that call `function`.
///
/// # Safety
/// `numbers` must have `count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_sort(
    numbers: *mut c_int,
    count: usize,
    function: Compare,
    argument: *mut c_void,
) -> c_int {
    // On the heap: greenlets copy parts of the stack away, but not the heap.
    let mut comparison = Box::new(Comparison(function, argument));
    let comparison = (&raw mut *comparison).cast();
    // SAFETY: the caller guarantees that `numbers` has `count` elements. `comparison` outlives the
    // call.
    let sort = || unsafe {
        libc::qsort_r(numbers.cast(), count, size_of::<c_int>(), Some(compare), comparison);
        0
    };
    or_failed(enter(|| downcall(sort)))
}
