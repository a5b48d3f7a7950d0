//! The answers of downcalls.

use std::panic::resume_unwind;

use crate::coroutine::{Cancelled, FiberContext};
use crate::drop_guards::drop_ignoring_panics;
use crate::thread::Payload;

/// The answer of a downcall, with and without a pending panic.
pub(super) trait Ends<R> {
    type Answer;

    /// The answer if no panic is pending.
    fn value(value: R) -> Self::Answer;

    /// The answer if `payload` is pending. `fiber` is the fiber making the downcall, if one does.
    fn value_and_panic(value: R, payload: Payload, fiber: Option<&FiberContext>) -> Self::Answer;
}

/// Raises the panic.
pub(super) struct Raises;

impl<R> Ends<R> for Raises {
    type Answer = R;

    #[inline(always)]
    fn value(value: R) -> R {
        value
    }

    fn value_and_panic(value: R, payload: Payload, fiber: Option<&FiberContext>) -> R {
        if let Some(fiber) = fiber.filter(|fiber| payload.is::<Cancelled>() && !fiber.unwinds()) {
            drop_ignoring_panics(|| drop(value));
            fiber.raise_cancelled();
        }
        if std::thread::panicking() {
            drop_ignoring_panics(|| drop(payload));
            return value;
        }
        // If dropping the value panics, this must not happen while the other panic unwinds.
        drop_ignoring_panics(|| drop(value));
        resume_unwind(payload)
    }
}

/// Returns the panic to the caller, beside the value.
pub(super) struct Gives;

impl<R> Ends<R> for Gives {
    type Answer = Result<R, (R, Payload)>;

    #[inline(always)]
    fn value(value: R) -> Self::Answer {
        Ok(value)
    }

    fn value_and_panic(value: R, payload: Payload, fiber: Option<&FiberContext>) -> Self::Answer {
        if let Some(fiber) = fiber.filter(|_| payload.is::<Cancelled>()) {
            fiber.is_to_unwind();
        }
        Err((value, payload))
    }
}
