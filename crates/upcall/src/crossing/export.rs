//! What `#[upcall::export]` makes of a function: an upcall, and what C gets when that gives no value.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Entry, Panicked, StackChoice, entry, message_of};
use crate::function::Function;
use crate::quiet::fatal;

/// Runs the body of a function whose `on_panic` is given.
#[inline(always)]
pub fn export_or<R, F: FnOnce() -> R>(entry: Entry, body: F, on_panic: impl FnOnce(Panicked) -> R) -> R {
    match entry.enter(body) {
        Ok(value) => value,
        Err(error) => answer(error, on_panic, Function::of::<F>()),
    }
}

/// Runs the body of a function without `on_panic`.
#[inline(always)]
pub fn export<R: Zero, F: FnOnce() -> R>(entry: Entry, body: F) -> R {
    match entry.enter(body) {
        Ok(value) => value,
        Err(error) => {
            if !error.is_on_its_way() {
                unanswered(&error, Function::of::<F>());
            }
            R::ZERO
        }
    }
}

/// What C gets from a function without `on_panic` while a panic is on its way to the enclosing downcall.
///
/// ```compile_fail,E0277
/// #[repr(C)]
/// enum Answer {
///     Yes,
///     No,
/// }
///
/// #[upcall::export]
/// extern "C" fn without_a_zero() -> Answer {
///     Answer::No
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no zero that C could get after a panic",
    label = "C gets one of these",
    note = "say which: `#[upcall::export(on_panic = …)]`"
)]
pub trait Zero {
    /// That.
    const ZERO: Self;
}

macro_rules! zero {
    ($($zero:expr => $($type:ty)*;)*) => { $($(
        impl Zero for $type {
            const ZERO: Self = $zero;
        }
    )*)* };
}

zero! {
    () => ();
    false => bool;
    0 => i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize;
    0.0 => f32 f64;
}

impl<T> Zero for *const T {
    const ZERO: Self = std::ptr::null();
}

impl<T> Zero for *mut T {
    const ZERO: Self = std::ptr::null_mut();
}

impl<T> Zero for Option<T> {
    const ZERO: Self = None;
}

/// The value that `on_panic` gives.
#[cold]
#[inline(never)]
fn answer<R>(error: Panicked, on_panic: impl FnOnce(Panicked) -> R, function: Function) -> R {
    catch_unwind(AssertUnwindSafe(|| on_panic(error))).unwrap_or_else(|payload| {
        stop(&|| format!("the on_panic of {function} panicked: {}", message_of(&*payload)))
    })
}

/// Nobody would ever hear of the error.
#[cold]
#[inline(never)]
fn unanswered(error: &Panicked, function: Function) -> ! {
    let what = if error.refusal().is_some() {
        "was refused"
    } else {
        "panicked where no downcall encloses it at which the panic could go on"
    };
    stop(&|| format!("{function} {what}, and names no value for C (on_panic): {error}"))
}

/// Stops the process, on a stack with room for that: of the caller's there may be too little.
fn stop(message: &dyn Fn() -> String) -> ! {
    drop(entry().stack(StackChoice::Pooled).enter(|| -> () { fatal(message()) }));
    // There is none.
    fatal(message())
}
