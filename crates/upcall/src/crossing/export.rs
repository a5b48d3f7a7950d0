//! The runtime of `#[upcall::export]`: an exported function is an upcall, and needs a value for C
//! if the upcall or its body fails.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Entry, StackChoice, UpcallError, entry, message_of, set_last_message};
use crate::coroutine::Cancelled;
use crate::function::Function;
use crate::messages::fatal;

/// Runs the body of a function with `on_panic`.
#[inline(always)]
pub fn export_or<R, F: FnOnce() -> R>(entry: Entry, body: F, on_panic: impl FnOnce(UpcallError) -> R) -> R {
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
            if !error.goes_on() {
                unanswered(&error, Function::of::<F>());
            }
            R::ZERO
        }
    }
}

/// The type of the body of a function with `on_error`.
pub type Fallible<R> = Result<R, Box<dyn Error + Send + Sync>>;

/// Runs the body of a function with `on_error`, inside its upcall.
#[inline(always)]
pub fn or_error<R, F: FnOnce() -> Fallible<R>>(
    body: F,
    on_error: impl FnOnce(&(dyn Error + 'static)) -> R,
) -> R {
    match body() {
        Ok(value) => value,
        Err(error) => failed(&*error, on_error, Function::of::<F>()),
    }
}

/// Keeps the error as the last message, and returns the value of `on_error`. If `on_error` panics,
/// aborts.
#[cold]
#[inline(never)]
fn failed<R>(
    error: &(dyn Error + 'static),
    on_error: impl FnOnce(&(dyn Error + 'static)) -> R,
    function: Function,
) -> R {
    set_last_message(with_sources(error));
    catch_unwind(AssertUnwindSafe(|| on_error(error))).unwrap_or_else(|payload| {
        if payload.is::<Cancelled>() {
            // `on_error` waited, and its fiber was dropped.
            resume_unwind(payload)
        }
        stop(&|| format!("the on_error of {function} panicked: {}", message_of(&*payload)))
    })
}

/// The text of an error and its sources: `a: b: c`.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// The value for C from a function without `on_panic`, while a panic is pending at the enclosing
/// downcall.
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
    /// The zero value of this type.
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

/// Returns the value of `on_panic`. If `on_panic` panics, aborts.
#[cold]
#[inline(never)]
fn answer<R>(error: UpcallError, on_panic: impl FnOnce(UpcallError) -> R, function: Function) -> R {
    catch_unwind(AssertUnwindSafe(|| on_panic(error))).unwrap_or_else(|payload| {
        stop(&|| format!("the on_panic of {function} panicked: {}", message_of(&*payload)))
    })
}

/// Aborts: nobody would ever hear of the error.
#[cold]
#[inline(never)]
fn unanswered(error: &UpcallError, function: Function) -> ! {
    let what = if error.refusal().is_some() {
        "was refused"
    } else {
        "panicked where no downcall encloses it at which the panic could go on"
    };
    stop(&|| format!("{function} {what}, and names no value for C (on_panic): {error}"))
}

/// Aborts with a message, on a pooled stack: the caller's stack may have too little room.
fn stop(message: &dyn Fn() -> String) -> ! {
    drop(entry().stack(StackChoice::Pooled).enter(|| -> () { fatal(message()) }));
    // There is no pooled stack: the upcall was refused.
    fatal(message())
}
