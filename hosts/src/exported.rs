//! Functions with the attribute `upcall::export`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use upcall::{downcall, export, wait};

use crate::{Callback, GuestWhere, here};

/// Divides; -1 after a panic, -2 after a refusal.
#[export(stack = "caller", min_stack = 32 << 10, on_panic = |error| if error.refusal().is_some() { -2 } else { -1 })]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_divide(dividend: c_int, divisor: c_int) -> c_int {
    dividend / divisor
}

/// Reports where it runs, on a pooled stack.
///
/// # Safety
/// `answer` is valid for writing.
#[unsafe(no_mangle)]
#[export(stack = "pooled", min_stack = 1 << 20)]
pub unsafe extern "C" fn guest_exported_where(answer: *mut GuestWhere) {
    // SAFETY: the caller's promise.
    unsafe { answer.write(here()) };
}

/// Counts the comparisons in which it panics, and says nothing of what C gets then.
///
/// # Safety
/// All point to an `int`.
#[export]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_compare(
    count: *mut c_int,
    a: *const c_int,
    b: *const c_int,
) -> Option<&'static c_int> {
    // SAFETY: the caller's promise.
    let (count, a, b) = unsafe { (&mut *count, &*a, &*b) };
    *count += 1;
    assert!(a < b, "comparison {count}");
    Some(b)
}

/// Calls C; says nothing of what C gets after a panic.
#[export(stack = "pooled")]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_call(callback: Callback, argument: *mut c_void) -> c_int {
    downcall(|| callback(argument))
}

macro_rules! exported_panics {
    ($($name:ident $type:ty;)*) => { $(
        /// Panics with the name of what it returns.
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

/// Something whose end C hears of, and which panics then.
pub struct GuestEnd(Callback, *mut c_void);

impl Drop for GuestEnd {
    fn drop(&mut self) {
        downcall(|| (self.0)(self.1));
        panic!("dropped at its end");
    }
}

/// Makes one.
#[export(on_panic = NonNull::dangling())]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_end_new(callback: Callback, argument: *mut c_void) -> NonNull<GuestEnd> {
    NonNull::from(Box::leak(Box::new(GuestEnd(callback, argument))))
}

/// Takes an end, and does nothing with it; on a panic, writes that to `failed`.
///
/// # Safety
/// `failed` is valid for writing.
#[export(stack = "pooled", on_panic = {
    // SAFETY: the caller's promise.
    unsafe { *failed = 1 };
    -1
})]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_end(_: Box<GuestEnd>, failed: *mut c_int) -> c_int {
    0
}

/// What C passes by value.
#[repr(C)]
pub struct GuestPair {
    first: c_int,
    second: c_int,
}

/// Adds up what comes in patterns, but for the parameter that is not there. -1 for what is negative.
#[export(on_panic = 0)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_sum<'a>(
    GuestPair { first, second }: GuestPair,
    mut sum: c_int,
    #[cfg(not(unix))] nobody: c_int,
    #[cfg(unix)] ref more: c_int,
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

/// Waits for what never comes; says nothing of what C gets when it ends in that.
#[export]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_wait() -> c_int {
    wait(std::future::pending())
}

/// Panics with `message`, and once more instead of saying what C gets.
///
/// # Safety
/// `message` is a C string.
#[export(on_panic = panic!("no value"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_exported_panic_twice(message: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    panic!("{}", unsafe { CStr::from_ptr(message) }.to_str().unwrap())
}

/// Must run on the caller's stack, and says nothing of what C gets when it cannot.
#[export(stack = "caller", min_stack = 32 << 10)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_on_caller() {}

/// A function that C is given a pointer to.
#[export(on_panic = -1)]
extern "C" fn by_pointer(argument: *mut c_void) -> c_int {
    assert!(!argument.is_null(), "nothing to work on");
    1
}

/// The pointer.
#[export]
#[unsafe(no_mangle)]
pub extern "C" fn guest_exported_pointer() -> Option<Callback> {
    Some(by_pointer)
}
