//! Functions with the attribute `upcall::export`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use upcall::{Status, downcall, export, wait};

use crate::{Callback, GuestWhere, here};

/// Divides. Returns -1 after a panic and -2 after a refusal.
#[export(stack = "caller", min_stack = 32 << 10, on_panic = |error| if error.refusal().is_some() { -2 } else { -1 })]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_divide(dividend: c_int, divisor: c_int) -> c_int {
    dividend / divisor
}

/// Writes the bounds of its own stack, a pooled one.
///
/// # Safety
/// `answer` must be valid for writes.
#[unsafe(no_mangle)]
#[export(stack = "pooled", min_stack = 1 << 20)]
pub unsafe extern "C" fn guest_exported_where(answer: *mut GuestWhere) {
    // SAFETY: by the caller's guarantee, `answer` is valid for writes.
    unsafe { answer.write(here()) };
}

/// Compares `a` and `b`, and panics unless `a < b`. It names no value for C after a panic.
///
/// `count` counts the calls.
///
/// # Safety
/// All three must point to an `int`, and `count` must not be aliased.
#[export]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_compare(
    count: *mut c_int,
    a: *const c_int,
    b: *const c_int,
) -> Option<&'static c_int> {
    // SAFETY: by the caller's guarantee, all three point to an `int`, and nothing aliases
    // `count`.
    let (count, a, b) = unsafe { (&mut *count, &*a, &*b) };
    *count += 1;
    assert!(a < b, "comparison {count}");
    Some(b)
}

/// Makes a downcall. It names no value for C after a panic.
#[export(stack = "pooled")]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_call(callback: Callback, argument: *mut c_void) -> c_int {
    downcall(|| callback(argument))
}

macro_rules! exported_panics {
    ($($name:ident $type:ty;)*) => { $(
        /// Panics. The message names the return type.
        #[export]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> $type {
            panic!("no {} to return", std::any::type_name::<$type>())
        }
    )* };
}

exported_panics! {
    guest_exported_panic ();
    guest_exported_panic_bool bool;
    guest_exported_panic_char c_char;
    guest_exported_panic_size usize;
    guest_exported_panic_double f64;
    guest_exported_panic_pointer *const c_void;
    guest_exported_panic_callback Option<Callback>;
    guest_exported_panic_box Option<Box<c_int>>;
}

/// A value whose destructor calls C and then panics.
pub struct GuestEnd(Callback, *mut c_void);

impl Drop for GuestEnd {
    fn drop(&mut self) {
        downcall(|| (self.0)(self.1));
        panic!("dropped at its end");
    }
}

/// Makes a `GuestEnd`.
#[export(on_panic = NonNull::dangling())]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_end_new(callback: Callback, argument: *mut c_void) -> NonNull<GuestEnd> {
    NonNull::from(Box::leak(Box::new(GuestEnd(callback, argument))))
}

/// Drops a `GuestEnd`. After the panic of its destructor, writes 1 to `failed`.
///
/// # Safety
/// `failed` must be valid for writes.
#[export(stack = "pooled", on_panic = {
    // SAFETY: the caller guarantees that `failed` is valid for writes.
    unsafe { *failed = 1 };
    -1
})]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_end(_: Box<GuestEnd>, failed: *mut c_int) -> c_int {
    0
}

/// A struct passed by value.
#[repr(C)]
pub struct GuestPair {
    first: c_int,
    second: c_int,
}

/// Adds up its parameters, which are patterns. Returns -1 if `sum` is negative.
///
/// One parameter is removed by its `cfg`.
#[export(on_panic = 0)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_sum<'a>(
    GuestPair { first, second }: GuestPair,
    mut sum: c_int,
    #[cfg(not(any(unix, windows)))] nobody: c_int,
    #[cfg(any(unix, windows))] ref more: c_int,
    last: Option<&'a c_int>,
) -> c_int {
    #![allow(clippy::needless_lifetimes)]
    if sum < 0 {
        return -1;
    }
    let add = |last: Option<&'a c_int>| Some(first + second + *more + *last?);
    sum += add(last).unwrap_or(0);
    sum
}

/// Waits for a future that is never ready. It names no value for C.
#[export]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_wait() -> c_int {
    wait(std::future::pending())
}

/// Panics with `message`. Its `on_panic` panics as well, instead of naming a value.
///
/// # Safety
/// `message` must be a C string.
#[export(on_panic = panic!("no value"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_panic_twice(message: *const c_char) -> c_int {
    // SAFETY: the caller guarantees that `message` is a C string.
    panic!("{}", unsafe { CStr::from_ptr(message) }.to_str().unwrap())
}

/// Fails with `message`. Returns -1, on a stack with room for an error's work.
///
/// # Safety
/// `message` must be a C string.
#[export(on_error = with_much_stack, on_panic = -2)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_error(message: *const c_char) -> c_int {
    // SAFETY: the caller guarantees that `message` is a C string.
    Err(unsafe { CStr::from_ptr(message) }.to_str()?)?
}

fn with_much_stack(_: &(dyn std::error::Error + 'static)) -> c_int {
    let room = std::hint::black_box([0xff; 64 << 10]);
    -c_int::from(room[room.len() - 1] == 0xff)
}

/// Fails in the way of this status, if it can.
#[export(on_error = Status::Error, stack = "caller", min_stack = 32 << 10)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_status(status: c_int) -> Status {
    match status {
        0 => Ok(Status::Ok),
        -1 => Err("an error")?,
        _ => panic!("a panic"),
    }
}

/// Fails with `message`. Its `on_error` panics, instead of naming a value.
///
/// # Safety
/// `message` must be a C string.
#[export(on_error = panic!("no value"), on_panic = -2)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_error_then_panic(message: *const c_char) -> c_int {
    // SAFETY: the caller guarantees that `message` is a C string.
    Err(unsafe { CStr::from_ptr(message) }.to_str()?)?
}

/// Must run on the caller's stack. It names no value for C after a refusal.
#[export(stack = "caller", min_stack = 32 << 10)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_on_caller() {}

/// An exported function, called by C through a pointer.
#[export(on_panic = -1)]
extern "C" fn by_pointer(argument: *mut c_void) -> c_int {
    assert!(!argument.is_null(), "nothing to work on");
    1
}

/// Returns a pointer to `by_pointer`.
#[export]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_pointer() -> Option<Callback> {
    Some(by_pointer)
}
