//! The values of `on_panic` and `on_error`: a value for C, or a function that gives it.
//!
//! The attribute sees only a path, for a constant and a function alike. The compiler chooses among
//! the implementations of these traits, by their last parameter.

use std::error::Error;

use super::UpcallError;

/// Marks an implementation for a value of the return type itself.
#[derive(Debug)]
pub enum Value {}

/// Marks an implementation for a function of the error.
#[derive(Debug)]
pub enum Call {}

/// Marks an implementation for a function of a reference to the error.
#[derive(Debug)]
pub enum CallByRef {}

/// Values and functions for `on_panic`.
#[diagnostic::on_unimplemented(
    message = "`on_panic` gives no `{R}`",
    label = "neither a `{R}` nor a function that returns one",
    note = "name a value, or a function from `UpcallError` or `&UpcallError` to the return type"
)]
pub trait OnPanic<R, Of> {
    /// Returns the value for C after `error`.
    fn on_panic(self, error: UpcallError) -> R;
}

impl<R> OnPanic<R, Value> for R {
    fn on_panic(self, _: UpcallError) -> R {
        self
    }
}

impl<R, F: FnOnce(UpcallError) -> R> OnPanic<R, Call> for F {
    fn on_panic(self, error: UpcallError) -> R {
        self(error)
    }
}

impl<R, F: FnOnce(&UpcallError) -> R> OnPanic<R, CallByRef> for F {
    fn on_panic(self, error: UpcallError) -> R {
        self(&error)
    }
}

/// Values and functions for `on_error`.
#[diagnostic::on_unimplemented(
    message = "`on_error` gives no `{R}`",
    label = "neither a `{R}` nor a function that returns one",
    note = "name a value, or a function from `&(dyn Error + 'static)` to the return type"
)]
pub trait OnError<R, Of> {
    /// Returns the value for C after `error`.
    fn on_error(self, error: &(dyn Error + 'static)) -> R;
}

impl<R> OnError<R, Value> for R {
    fn on_error(self, _: &(dyn Error + 'static)) -> R {
        self
    }
}

impl<R, F: FnOnce(&(dyn Error + 'static)) -> R> OnError<R, Call> for F {
    fn on_error(self, error: &(dyn Error + 'static)) -> R {
        self(error)
    }
}

/// Values of `on_error` in a function without `on_panic`.
#[diagnostic::on_unimplemented(
    message = "C needs a `{R}` after a panic, too",
    label = "this is no `{R}`, so it gives none after a panic",
    note = "say which: `#[upcall::export(on_error = …, on_panic = …)]`"
)]
pub trait AlsoOnPanic<R> {
    /// Returns the value for C after a panic.
    fn also_on_panic(self) -> R;
}

impl<R> AlsoOnPanic<R> for R {
    fn also_on_panic(self) -> R {
        self
    }
}
