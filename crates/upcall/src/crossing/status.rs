//! A status for C: success, or the kind of a failure.

use std::ffi::c_int;

use super::{UpcallError, UpcallErrorKind};

/// The result of an exported function without another: success, or the kind of the failure.
///
/// ```
/// use std::ffi::c_int;
/// use upcall::Status;
///
/// #[upcall::export(on_error = Status::Error)]
/// extern "C" fn check(number: c_int) -> Status {
///     assert_ne!(number, 0);
///     u8::try_from(number)?;
///     Ok(Status::Ok)
/// }
///
/// assert_eq!(check(7), Status::Ok);
/// assert_eq!(check(300), Status::Error);
/// assert_eq!(check(0), Status::Panic);
/// ```
///
/// With `on_error` alone, C gets [`Status::of`] the upcall's error after a panic or a refusal. The
/// last message has the reason of each failure.
///
/// # In C
/// C gets an `int`, and `upcall.h` has the constants `UPCALL_OK`, `UPCALL_ERROR`, `UPCALL_PANIC`
/// and `UPCALL_REFUSED`. They have no prefix: they are the same for all libraries. cbindgen does
/// not know this type, so name it in `cbindgen.toml`:
///
/// ```toml
/// [export.rename]
/// "Status" = "int"
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Status {
    /// The function has succeeded: `UPCALL_OK`.
    Ok = 0,
    /// The function's body returned an error: `UPCALL_ERROR`.
    Error = -1,
    /// The function's body panicked: `UPCALL_PANIC`.
    Panic = -2,
    /// The function was not run: `UPCALL_REFUSED`.
    Refused = -3,
}

impl Status {
    /// The status after a failed upcall: [`Panic`](Self::Panic) or [`Refused`](Self::Refused).
    ///
    /// ```
    /// use upcall::Status;
    ///
    /// let status = |body: fn()| match upcall::enter(body) {
    ///     Ok(()) => Status::Ok,
    ///     Err(error) => Status::of(&error),
    /// };
    /// assert_eq!(status(|| ()), Status::Ok);
    /// assert_eq!(status(|| panic!("no such row")), Status::Panic);
    /// ```
    ///
    /// `on_panic = Status::of` gives it to C from a function whose `on_error` is a function.
    pub fn of(error: &UpcallError) -> Self {
        match error.kind() {
            UpcallErrorKind::Panicked => Self::Panic,
            UpcallErrorKind::Refused(_) => Self::Refused,
        }
    }
}

impl From<Status> for c_int {
    fn from(status: Status) -> Self {
        status as Self
    }
}
