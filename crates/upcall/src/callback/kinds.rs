//! The kinds of closures: how each is kept and called.

use std::any::type_name;

use super::arguments::{CallMut, CallOnce, CallShared};
use crate::handle::{HandleError, table};

/// The reason why a call cannot be made.
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
    /// The message for C about a call of `name`.
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

/// A kind of closure, as kept in the table of handles.
pub trait ClosureKind: Sized {
    /// The type of the closure.
    type Closure;

    /// Ends the callback behind `data`.
    ///
    /// # Safety
    /// The caller owns the callback: it is its `Drop`, or C calling
    /// [`destroy`](super::Callback::destroy). Anybody else could end a scope's callback during a
    /// call of it.
    unsafe fn remove(data: usize) -> Result<(), HandleError>;

    fn name() -> &'static str {
        type_name::<Self::Closure>()
    }
}

/// A kind of closure for calls by C with arguments `A` and result `R`. All are in this module.
pub trait Call<A, R>: ClosureKind {
    /// Calls the closure.
    ///
    /// # Safety
    /// `data` comes from C, as the `void *` of a function made for this kind, lifetimes included;
    /// or it leads to no such closure.
    #[doc(hidden)]
    unsafe fn call(data: usize, arguments: A) -> Result<R, Refused>;
}

/// A kind of closure that C can own.
pub trait Repeatable: ClosureKind {}

/// An `FnMut` callback: see [`new`](super::new).
#[derive(Debug)]
pub struct Mutable<F>(pub(super) F);

/// An `Fn` callback: see [`shared`](super::shared).
#[derive(Debug)]
pub struct Shared<F>(pub(super) F);

/// An `FnOnce` callback: see [`once`](super::once).
#[derive(Debug)]
pub struct Once<F>(pub(super) F);

impl<F> Repeatable for Mutable<F> {}
impl<F> Repeatable for Shared<F> {}
impl<F> Repeatable for Once<F> {}

impl<F> ClosureKind for Mutable<F> {
    type Closure = F;

    unsafe fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: `new` requires `F: Send`, so any thread may drop the closure.
        unsafe { table::remove::<Self>(data) }
    }
}

impl<F: CallMut<A, R>, A, R> Call<A, R> for Mutable<F> {
    #[inline(always)]
    unsafe fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `new` requires `F: Send`, so any thread may call the closure if it is alone.
        Ok(unsafe { table::with_mut(data, |closure: &mut Self| closure.0.call_mut(arguments)) }?)
    }
}

impl<F> ClosureKind for Shared<F> {
    type Closure = F;

    unsafe fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: `shared` requires `F: Send`, so any thread may drop the closure.
        unsafe { table::remove::<Self>(data) }
    }
}

impl<F: CallShared<A, R>, A, R> Call<A, R> for Shared<F> {
    #[inline(always)]
    unsafe fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `shared` requires `F: Sync`, so several threads may call the closure at once.
        Ok(unsafe { table::with(data, |closure: &Self| closure.0.call(arguments)) }?)
    }
}

impl<F> ClosureKind for Once<F> {
    type Closure = F;

    unsafe fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: `once` requires `F: Send`, so any thread may drop the closure.
        match unsafe { table::remove::<Self>(data) } {
            // The call of the closure freed it.
            Err(HandleError::Freed) => Ok(()),
            result => result,
        }
    }
}

impl<F: CallOnce<A, R>, A, R> Call<A, R> for Once<F> {
    #[inline(always)]
    unsafe fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `once` requires `F: Send`, so the closure may move to this thread.
        let Self(closure) = unsafe { table::take(data) }?;
        Ok(closure.call_once(arguments))
    }
}
