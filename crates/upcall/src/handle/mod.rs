//! Rust values that C keeps as a `void *`.
//!
//! Rule: **nothing that C gives is dereferenced.** It is a number, looked up in a table; what leads to no value there is an error.

mod kind;
#[cfg(all(test, upcall_loom))]
mod model;
mod number;
mod slot;
pub(crate) mod table;

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ptr;

/// A Rust value that C keeps as a `void *`, and gives back: an opaque object of a C library.
///
/// The `void *` is no pointer but a number that leads to the value, and is never given out twice. One that is null, was freed already, belongs to a
/// value of another type, or came from somewhere else is an error, on any thread and at any time, and never undefined behaviour:
///
/// ```
/// use std::ffi::{c_int, c_void};
/// use upcall::{Handle, enter};
///
/// struct Counter {
///     sum: i32,
/// }
///
/// /// Returns a counter, to be freed by `counter_free`.
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_new(sum: c_int) -> *mut c_void {
///     enter(|| Handle::into_raw(Counter { sum })).unwrap_or(std::ptr::null_mut())
/// }
///
/// /// Returns the new sum; -1 if `counter` is none, for a reason that `upcall_last_panic` tells.
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_add(counter: *mut c_void, number: c_int) -> c_int {
///     enter(|| {
///         let add = |counter: &mut Counter| {
///             counter.sum += number;
///             counter.sum
///         };
///         Handle::with_mut(counter, add).unwrap()
///     })
///     .unwrap_or(-1)
/// }
///
/// /// Returns 0; -1 if `counter` is none, as when it was freed already.
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_free(counter: *mut c_void) -> c_int {
///     enter(|| Handle::<Counter>::remove(counter).unwrap()).map_or(-1, |()| 0)
/// }
///
/// // What C does with it:
/// let counter = counter_new(40);
/// assert_eq!(counter_add(counter, 2), 42);
/// assert_eq!(counter_free(counter), 0);
/// assert_eq!(counter_add(counter, 1), -1);
/// assert_eq!(counter_free(counter), -1);
/// assert_eq!(counter_add(std::ptr::null_mut(), 1), -1);
/// ```
///
/// [`with`](Self::with) shares a value among all who call it, [`with_mut`](Self::with_mut) gives it to one at a time. Neither ever waits: where one would
/// have to, it is an error. No lock is held during the closure, which may call C, wait, and use any handle, its own too.
///
/// After a fork, the child has the handles of its parent, with copies of their values. Threads that it does not have stay inside those that they used.
/// A closure that C leaves by `longjmp` stays inside its own for ever, too.
///
/// There is no value of this type. There can be 16 million handles at once, and 280 million million in the life of a process (on systems of 32
/// bits: 32 thousand, and a thousand million).
pub struct Handle<T>(PhantomData<fn() -> T>, Never);

enum Never {}

impl<T: Send + 'static> Handle<T> {
    /// Keeps `value` until C has given its handle back to [`from_raw`](Self::from_raw) or [`remove`](Self::remove). Whoever has the handle may do so,
    /// from any thread. It is not null, nor an address.
    ///
    /// # Panics
    /// When there are no handles left.
    #[must_use = "the value is kept until its handle is removed"]
    pub fn into_raw(value: T) -> *mut c_void {
        ptr::without_provenance_mut(table::insert(value))
    }

    /// Takes the value back. The handle is stale from now on.
    ///
    /// # Errors
    /// As [`HandleError`] tells; [`InUse`](HandleError::InUse) inside [`with`](Self::with) and [`with_mut`](Self::with_mut) of that handle, on this thread
    /// or another.
    pub fn from_raw(raw: *mut c_void) -> Result<T, HandleError> {
        // SAFETY: the value is `Send`.
        unsafe { table::take(raw.addr()) }
    }

    /// Drops the value. The handle is stale from now on; the value of one that is in use is dropped when the last that uses it is done with it, there, and what
    /// its destructor panics with goes no further.
    ///
    /// # Errors
    /// As [`HandleError`] tells.
    pub fn remove(raw: *mut c_void) -> Result<(), HandleError> {
        // SAFETY: the value is `Send`, and so are those that are shared.
        unsafe { table::remove::<T>(raw.addr()) }
    }

    /// Calls `f` with the value, which nobody else can use meanwhile, on whatever thread.
    ///
    /// # Errors
    /// As [`HandleError`] tells; [`InUse`](HandleError::InUse) while another `with_mut` or [`with`](Self::with) of that handle runs, be it one that this is
    /// called in.
    #[inline]
    pub fn with_mut<R>(raw: *mut c_void, f: impl FnOnce(&mut T) -> R) -> Result<R, HandleError> {
        // SAFETY: the value is `Send`.
        unsafe { table::with_mut(raw.addr(), f) }
    }

    /// Calls `f` with the value, which others can use meanwhile by `with`.
    ///
    /// # Errors
    /// As [`HandleError`] tells; [`InUse`](HandleError::InUse) while a [`with_mut`](Self::with_mut) of that handle runs.
    #[inline]
    pub fn with<R>(raw: *mut c_void, f: impl FnOnce(&T) -> R) -> Result<R, HandleError>
    where
        T: Sync,
    {
        // SAFETY: the value is `Sync`.
        unsafe { table::with(raw.addr(), f) }
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {}
    }
}

/// Why a handle that C gave did not lead to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// It is null.
    Null,
    /// It is no handle: a pointer, a number, or a handle of another copy of this library.
    Foreign {
        /// What C gave.
        value: usize,
    },
    /// Its value was taken back or removed.
    Freed,
    /// Its value is of another type.
    WrongType {
        /// That type.
        found: &'static str,
        /// The type that the function works with.
        expected: &'static str,
    },
    /// Its value is in use, and one of the two wants it alone.
    InUse,
}

impl fmt::Display for HandleError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("the handle is null: pass what the function that makes the object returned, having checked that it did"),
            Self::Foreign { value } => write!(
                out,
                "{value:#x} is no handle: pass what the function that makes the object returned, unchanged, to the library that it came from"
            ),
            Self::Freed => {
                out.write_str("the handle's object was freed already: do not use a handle after giving it to the function that frees it")
            }
            Self::WrongType { found, expected } => write!(
                out,
                "the handle is of an object of type {found}, and the function works with {expected}: pass one to functions of its own kind"
            ),
            Self::InUse => out.write_str(
                "the handle's object is in use, by another thread or by a call that this one is made in: let that return first, or share the object \
                 (Handle::with)",
            ),
        }
    }
}

impl std::error::Error for HandleError {}
