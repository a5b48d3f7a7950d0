//! Handles: Rust values that C keeps by opaque pointers.
//!
//! Rule: **a value from C is never dereferenced.** It is a number, looked up in a table. A number
//! without an entry there is an error.

#[cfg(all(test, upcall_loom))]
mod model;
mod number;
mod slot;
pub(crate) mod table;
mod type_tag;

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

/// A Rust value that C keeps by an opaque pointer: the object of a C library.
///
/// The pointer has the type `*mut T`, so the C compiler and Rust's type inference check it. But it
/// is a number, not an address. It leads to the value, and upcall never gives out the same number
/// twice. A handle is an error if it is null, was freed, belongs to a value of another type, or
/// came from elsewhere. This holds on any thread and at any time; a bad handle is never undefined
/// behaviour:
///
/// ```
/// use std::ffi::c_int;
/// use std::ptr::{null, null_mut};
/// use upcall::Handle;
///
/// /// A counter.
/// pub struct Counter {
///     sum: i32,
/// }
///
/// /// Returns a counter, to be freed by `counter_free`; null on failure.
/// #[upcall::export(on_error = null_mut())]
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_new(sum: c_int) -> *mut Counter {
///     Ok(Handle::into_raw(Counter { sum }))
/// }
///
/// /// Returns the new sum, or -1.
/// #[upcall::export(on_error = -1)]
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_add(counter: *mut Counter, number: c_int) -> c_int {
///     Handle::with_mut(counter, |counter| counter.sum += number)?;
///     Ok(Handle::with(counter, |counter| counter.sum)?)
/// }
///
/// /// Returns the sum, or -1.
/// #[upcall::export(on_error = -1)]
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_sum(counter: *const Counter) -> c_int {
///     Ok(Handle::with(counter, |counter| counter.sum)?)
/// }
///
/// /// Frees the counter. Returns 0, or -1 if `counter` is none, as when it was freed already.
/// #[upcall::export(on_error = -1)]
/// #[unsafe(no_mangle)]
/// pub extern "C" fn counter_free(counter: *mut Counter) -> c_int {
///     Handle::remove(counter)?;
///     Ok(0)
/// }
///
/// // What C does with it:
/// let counter = counter_new(40);
/// assert_eq!(counter_add(counter, 2), 42);
/// assert_eq!(counter_free(counter), 0);
/// assert_eq!(counter_add(counter, 1), -1);
/// assert_eq!(counter_free(counter), -1);
/// assert_eq!(counter_sum(null()), -1);
/// ```
///
/// cbindgen makes an incomplete type of the struct, as it has no `repr(C)`:
///
/// ```c
/// /** A counter. */
/// typedef struct Counter Counter;
///
/// struct Counter *counter_new(int sum);
/// int counter_add(struct Counter *counter, int number);
/// int counter_sum(const struct Counter *counter);
/// int counter_free(struct Counter *counter);
/// ```
///
/// **Never dereference the pointer**, in Rust or in C: on 64-bit systems, the thread faults there.
/// A C library that wants a `void *` gets `pointer.cast()`, and gives the same back.
///
/// [`with`](Self::with) shares a value among all its callers; [`with_mut`](Self::with_mut) gives it
/// to one caller at a time. Neither ever waits: instead of waiting, they return an error. No lock
/// is held during the closure. The closure may call C, wait, and use any handle, including its own.
///
/// After a fork, the child has its parent's handles, with copies of their values. Handles that
/// other threads were using at the fork stay in use there for ever. So does a handle whose closure
/// C abandoned by `longjmp`.
///
/// This type has no values. At most 16 million handles exist at once, and a process can make 280
/// million million of them in its life (on 32-bit systems: 32 thousand, and a thousand million).
pub struct Handle<T>(PhantomData<fn() -> T>, Never);

enum Never {}

impl<T: Send + 'static> Handle<T> {
    /// Keeps `value` for C and returns its handle.
    ///
    /// The value stays until the handle is passed to [`from_raw`](Self::from_raw) or
    /// [`remove`](Self::remove). Whoever has the handle may do so, from any thread. The handle is
    /// neither null nor an address.
    ///
    /// # Panics
    /// If no handle is free.
    #[must_use = "the value is kept until its handle is removed"]
    pub fn into_raw(value: T) -> *mut T {
        ptr::without_provenance_mut(table::insert(value))
    }

    /// Takes the value back from its handle. The handle is stale from now on.
    ///
    /// # Errors
    /// See [`HandleError`]. In particular [`InUse`](HandleError::InUse), if a [`with`](Self::with)
    /// or [`with_mut`](Self::with_mut) of this handle is running, on this thread or another.
    pub fn from_raw(raw: *mut T) -> Result<T, HandleError> {
        // SAFETY: `T: Send`, so the value may move to this thread.
        unsafe { table::take(raw.addr()) }
    }

    /// Drops the value. The handle is stale from now on.
    ///
    /// If the value is in use, its last user drops it when done, on its own thread; a panic of the
    /// destructor is ignored there.
    ///
    /// # Errors
    /// See [`HandleError`]; never [`InUse`](HandleError::InUse).
    ///
    /// # Panics
    /// If the value is dropped here and its destructor panics.
    pub fn remove(raw: *mut T) -> Result<(), HandleError> {
        // SAFETY: `T: Send`, so this thread may drop the value. If others use it, the last of them
        // drops it on its own thread, which `T: Send` allows as well.
        unsafe { table::remove::<T>(raw.addr()) }
    }

    /// Calls `f` with exclusive access to the value, on the calling thread.
    ///
    /// # Errors
    /// See [`HandleError`]. In particular [`InUse`](HandleError::InUse), if another `with_mut` or
    /// [`with`](Self::with) of this handle is running, including one further up this stack.
    #[inline]
    pub fn with_mut<R>(raw: *mut T, f: impl FnOnce(&mut T) -> R) -> Result<R, HandleError> {
        // SAFETY: `T: Send`, so `f` may use the value exclusively on this thread.
        unsafe { table::with_mut(raw.addr(), f) }
    }

    /// Calls `f` with the value, shared with other callers of `with`.
    ///
    /// # Errors
    /// See [`HandleError`]. In particular [`InUse`](HandleError::InUse), if a
    /// [`with_mut`](Self::with_mut) of this handle is running.
    #[inline]
    pub fn with<R>(raw: *const T, f: impl FnOnce(&T) -> R) -> Result<R, HandleError>
    where
        T: Sync,
    {
        // SAFETY: `T` is `Sync`, so `f` may use the value on this thread beside other users. `T` is
        // also `Send`, so this thread may drop it as the last user.
        unsafe { table::with(raw.addr(), f) }
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {}
    }
}

/// The reason why a handle from C led to no usable value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// The handle is null.
    Null,
    /// C passed something that is no handle: a pointer, a number, or a handle of another copy of
    /// this library.
    Foreign {
        /// The value from C.
        value: usize,
    },
    /// The handle's value was taken back or removed.
    Freed,
    /// The handle's value is of another type.
    WrongType {
        /// The type of the handle's value.
        found: &'static str,
        /// The type expected by the function.
        expected: &'static str,
    },
    /// The value is in use, and this use or the other one needs it exclusively.
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
