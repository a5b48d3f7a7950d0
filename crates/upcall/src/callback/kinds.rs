//! How closures are kept and called.

use std::any::type_name;

use super::arguments::{CallMut, CallOnce, CallShared};
use crate::handle::{HandleError, table};

/// Why a call cannot be made.
#[derive(Debug)]
pub enum Refused {
    Data(HandleError),
    OtherThread,
}

impl From<HandleError> for Refused {
    fn from(error: HandleError) -> Self {
        Self::Data(error)
    }
}

impl Refused {
    /// What C is told of a call of `name`.
    pub fn message(&self, name: &str) -> String {
        let why = match self {
            Self::Data(HandleError::Null) => {
                "got a null pointer as its data: pass the pointer that was registered with it"
            }
            Self::Data(HandleError::Foreign { value }) => {
                return format!(
                    "the callback {name} got {value:#x} as its data, which is none of a callback's: pass the pointer that was registered with it"
                );
            }
            Self::Data(HandleError::WrongType { found, .. }) => {
                return format!(
                    "the callback {name} got the data of {found}: pass the pointer that was registered with it"
                );
            }
            Self::Data(HandleError::Freed) => {
                "is gone: it was destroyed, or its scope has ended, or it was to be called once and has been"
            }
            Self::Data(HandleError::InUse) => {
                "runs already, and changes what it has: call it by one thread at a time, not inside itself, or make it an Fn (callback::shared)"
            }
            Self::OtherThread => {
                "was called on another thread than that of its scope: call it there, or make it an Fn + Sync (callback::scope_shared)"
            }
        };
        format!("the callback {name} {why}")
    }
}

/// What is in the table for C.
pub trait Kind: Sized {
    /// The closure.
    type Closure;

    /// Ends what C has in `data`.
    fn remove(data: usize) -> Result<(), HandleError>;

    fn name() -> &'static str {
        type_name::<Self::Closure>()
    }
}

/// A kind of closure that C can call with arguments `A`, for an `R`. They are in this module.
pub trait Call<A, R>: Kind {
    #[doc(hidden)]
    fn call(data: usize, arguments: A) -> Result<R, Refused>;
}

/// A kind of closure that C can have to itself.
pub trait Kept: Kind {}

/// An `FnMut`; see [`new`](super::new).
#[derive(Debug)]
pub struct Mutable<F>(pub(super) F);

/// An `Fn`; see [`shared`](super::shared).
#[derive(Debug)]
pub struct Shared<F>(pub(super) F);

/// An `FnOnce`; see [`once`](super::once).
#[derive(Debug)]
pub struct Once<F>(pub(super) F);

impl<F> Kept for Mutable<F> {}
impl<F> Kept for Shared<F> {}
impl<F> Kept for Once<F> {}

impl<F> Kind for Mutable<F> {
    type Closure = F;

    fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: `new` takes what is `Send`.
        unsafe { table::remove::<Self>(data) }
    }
}

impl<F: CallMut<A, R>, A, R> Call<A, R> for Mutable<F> {
    #[inline(always)]
    fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `new` takes what is `Send`.
        Ok(unsafe { table::with_mut(data, |closure: &mut Self| closure.0.call_mut(arguments)) }?)
    }
}

impl<F> Kind for Shared<F> {
    type Closure = F;

    fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: `shared` takes what is `Send`.
        unsafe { table::remove::<Self>(data) }
    }
}

impl<F: CallShared<A, R>, A, R> Call<A, R> for Shared<F> {
    #[inline(always)]
    fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `shared` takes what is `Sync`.
        Ok(unsafe { table::with(data, |closure: &Self| closure.0.call(arguments)) }?)
    }
}

impl<F> Kind for Once<F> {
    type Closure = F;

    fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: `once` takes what is `Send`.
        match unsafe { table::remove::<Self>(data) } {
            // Its call freed it.
            Err(HandleError::Freed) => Ok(()),
            result => result,
        }
    }
}

impl<F: CallOnce<A, R>, A, R> Call<A, R> for Once<F> {
    #[inline(always)]
    fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `once` takes what is `Send`.
        let Self(closure) = unsafe { table::take(data) }?;
        Ok(closure.call_once(arguments))
    }
}
