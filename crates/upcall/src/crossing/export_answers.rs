//! The values of `on_panic` and `on_error`: a value for C, or a function that gives it.
//!
//! The attribute sees only a path, for a constant and a function alike. The compiler chooses among
//! the implementations of these traits, by their last parameter.

use std::error::Error;
use std::marker::PhantomData;

use super::{Status, UpcallError};

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
    /// The value, once its type is known to be that of the function.
    fn value(self) -> R;
}

impl<R> AlsoOnPanic<R> for R {
    fn value(self) -> R {
        self
    }
}

/// The return type of a function whose `on_error` also serves after a panic.
///
/// `(&Returned::<R>::TYPE).after_panic()` is the function from the value of `on_error` to the value
/// after a panic. The call finds [`OfStatus`] for a [`Status`]. For all other types, it needs one
/// more reference, and finds [`OfAny`].
#[derive(Debug)]
pub struct Returned<R>(PhantomData<R>);

impl<R> Returned<R> {
    /// The only value.
    pub const TYPE: Self = Self(PhantomData);
}

/// A return type with values of its own for panics and refusals. See [`Returned`].
pub trait OfStatus {
    /// The value after a panic, whatever that of `on_error` is.
    fn after_panic(&self) -> fn(Status, UpcallError) -> Status;
}

impl OfStatus for Returned<Status> {
    fn after_panic(&self) -> fn(Status, UpcallError) -> Status {
        |_, error| Status::of(&error)
    }
}

/// Any other return type. See [`Returned`].
pub trait OfAny<R> {
    /// The value of `on_error`.
    fn after_panic(&self) -> fn(R, UpcallError) -> R;
}

impl<R> OfAny<R> for &Returned<R> {
    fn after_panic(&self) -> fn(R, UpcallError) -> R {
        |value, _| value
    }
}
