//! Arguments from C, checked: strings, slices, references and places for results.
//!
//! Each function turns a pointer into a Rust type. It finds null, a wrong alignment, an impossible
//! length and text that is not UTF-8. It cannot find a pointer to memory that is not there: that is
//! the promise of its caller, who passes the promise on to C.
//!
//! ```
//! use std::ffi::{c_char, c_int};
//! use upcall::{Status, arg};
//!
//! /// Writes the number of `word` in `text`.
//! ///
//! /// # Safety
//! /// `text` and `word` are C strings or null. `count` is null or can be written.
//! #[upcall::export(on_error = Status::Error)]
//! #[unsafe(no_mangle)]
//! pub unsafe extern "C" fn count_words(
//!     text: *const c_char,
//!     word: *const c_char,
//!     count: *mut c_int,
//! ) -> Status {
//!     // SAFETY: the caller's promise.
//!     let (text, word, count) = unsafe { (arg::str(text)?, arg::str(word)?, arg::out(count)?) };
//!     count.write(text.split(' ').filter(|other| *other == word).count().try_into()?);
//!     Ok(Status::Ok)
//! }
//!
//! let mut count = 0;
//! // SAFETY: these are C strings, or null.
//! unsafe {
//!     let text = c"to be or not to be";
//!     assert_eq!(count_words(text.as_ptr(), c"be".as_ptr(), &mut count), Status::Ok);
//!     assert_eq!(count, 2);
//!     assert_eq!(count_words(std::ptr::null(), c"be".as_ptr(), &mut count), Status::Error);
//! }
//! ```
//!
//! # Safety
//! All functions here have the same requirements, for a pointer that passes the checks:
//! - It points to memory of the length that C gave, or up to the 0 of a string. C keeps the memory
//!   valid during `'a`. The compiler takes any `'a`: choose one that ends with the call from C.
//! - C does not change the memory during `'a`. If the result is exclusive (`&mut`), C and Rust do
//!   not use it otherwise either.
//! - The memory has values of the type, except for [`out`].
//!
//! A pointer that fails a check has no requirements.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::mem::MaybeUninit;
use std::slice::{from_raw_parts, from_raw_parts_mut};

/// The reason why an argument from C was refused.
///
/// `Display` says what C has to pass instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgError {
    /// The pointer is null.
    Null,
    /// The text is not UTF-8.
    NotUtf8 {
        /// The number of bytes before the first wrong one.
        position: usize,
    },
    /// The pointer's address is no multiple of the type's alignment.
    Misaligned {
        /// The address.
        address: usize,
        /// The alignment of the type, in bytes.
        align: usize,
    },
    /// No array is so long.
    TooLong {
        /// The number of elements, from C.
        len: usize,
    },
}

impl fmt::Display for ArgError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("a pointer is null: pass the address of what the function needs"),
            Self::NotUtf8 { position } => {
                write!(out, "a text is not UTF-8, from its byte {position} on: convert it to UTF-8 first")
            }
            Self::Misaligned { address, align } => write!(
                out,
                "the pointer {address:#x} is not aligned to {align} bytes: pass the address of a variable or array of the \
                 right type"
            ),
            Self::TooLong { len } => {
                write!(out, "no array has {len} elements: pass its length, and check it for negative values")
            }
        }
    }
}

impl std::error::Error for ArgError {}

/// A C string of UTF-8.
///
/// # Errors
/// If `text` is null, or not UTF-8.
///
/// # Safety
/// See [`arg`](self#safety): `text` is null, or a C string that stays unchanged during `'a`.
pub unsafe fn str<'a>(text: *const c_char) -> Result<&'a str, ArgError> {
    // SAFETY: the caller's promise is the same.
    let text = unsafe { c_str(text) }?;
    text.to_str().map_err(|error| ArgError::NotUtf8 { position: error.valid_up_to() })
}

/// A C string of UTF-8; `None` for null.
///
/// # Errors
/// If `text` is not UTF-8.
///
/// # Safety
/// See [`arg`](self#safety): `text` is null, or a C string that stays unchanged during `'a`.
pub unsafe fn optional_str<'a>(text: *const c_char) -> Result<Option<&'a str>, ArgError> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise is the same.
    unsafe { str(text) }.map(Some)
}

/// A C string of any bytes.
///
/// # Errors
/// If `text` is null.
///
/// # Safety
/// See [`arg`](self#safety): `text` is null, or a C string that stays unchanged during `'a`.
pub unsafe fn c_str<'a>(text: *const c_char) -> Result<&'a CStr, ArgError> {
    if text.is_null() {
        return Err(ArgError::Null);
    }
    // SAFETY: the pointer is not null, so the caller promises a C string.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// An array of `len` elements.
///
/// If `len` is 0, the slice is empty, and `first` may be anything.
///
/// # Errors
/// If `first` is null or misaligned, or if there can be no array of this length.
///
/// # Safety
/// See [`arg`](self#safety): `first` points to `len` elements that stay unchanged during `'a`.
pub unsafe fn slice<'a, T>(first: *const T, len: usize) -> Result<&'a [T], ArgError> {
    if len == 0 {
        return Ok(&[]);
    }
    check_len::<T>(len)?;
    check(first)?;
    // SAFETY: the pointer is neither null nor misaligned, and the array is not too long. The caller
    // promises the elements.
    Ok(unsafe { from_raw_parts(first, len) })
}

/// An array of `len` elements, to be changed.
///
/// If `len` is 0, the slice is empty, and `first` may be anything.
///
/// # Errors
/// If `first` is null or misaligned, or if there can be no array of this length.
///
/// # Safety
/// See [`arg`](self#safety): `first` points to `len` elements for this slice alone during `'a`.
pub unsafe fn slice_mut<'a, T>(first: *mut T, len: usize) -> Result<&'a mut [T], ArgError> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_len::<T>(len)?;
    check(first)?;
    // SAFETY: the pointer is neither null nor misaligned, and the array is not too long. The caller
    // promises the elements, for this slice alone.
    Ok(unsafe { from_raw_parts_mut(first, len) })
}

/// A value of C's.
///
/// # Errors
/// If `value` is null or misaligned.
///
/// # Safety
/// See [`arg`](self#safety): `value` points to a `T` that stays unchanged during `'a`.
pub unsafe fn reference<'a, T>(value: *const T) -> Result<&'a T, ArgError> {
    check(value)?;
    // SAFETY: the pointer is neither null nor misaligned, and the caller promises a `T`.
    Ok(unsafe { &*value })
}

/// A value of C's, to be changed.
///
/// # Errors
/// If `value` is null or misaligned.
///
/// # Safety
/// See [`arg`](self#safety): `value` points to a `T` for this reference alone during `'a`.
pub unsafe fn reference_mut<'a, T>(value: *mut T) -> Result<&'a mut T, ArgError> {
    check(value)?;
    // SAFETY: the pointer is neither null nor misaligned. The caller promises a `T`, for this
    // reference alone.
    Ok(unsafe { &mut *value })
}

/// A place for a result. It need not have a value yet.
///
/// # Errors
/// If `place` is null or misaligned.
///
/// # Safety
/// See [`arg`](self#safety): `place` points to memory for a `T`, for this reference alone during
/// `'a`.
pub unsafe fn out<'a, T>(place: *mut T) -> Result<&'a mut MaybeUninit<T>, ArgError> {
    // SAFETY: the caller's promise is the same. A `MaybeUninit` needs no value.
    unsafe { reference_mut(place.cast()) }
}

fn check<T>(pointer: *const T) -> Result<(), ArgError> {
    if pointer.is_null() {
        return Err(ArgError::Null);
    }
    if !pointer.is_aligned() {
        return Err(ArgError::Misaligned { address: pointer.addr(), align: align_of::<T>() });
    }
    Ok(())
}

fn check_len<T>(len: usize) -> Result<(), ArgError> {
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(ArgError::TooLong { len }),
    }
}
