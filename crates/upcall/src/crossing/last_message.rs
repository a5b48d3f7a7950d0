//! The last message: the reason why a call failed last, for C to ask for.
//!
//! Rule: **the message belongs to the fiber whose code runs at SP, or else to the thread.** So C
//! code that was suspended on a fiber finds its own message, whatever failed on the thread
//! meanwhile. C code that a fiber called on the thread's stack cannot be suspended, and uses the
//! thread's message.

use std::cell::RefCell;
use std::fmt::Display;

use stackbounds::stack_pointer;

use crate::stack::{StackHeader, header_at};
use crate::sync::in_own_code;
use crate::thread::{Attached, ThreadState};

/// The place of the message for code at `sp`; `None` on a thread without a record.
fn place(thread: &ThreadState, sp: usize) -> Option<&RefCell<Option<String>>> {
    let header = if thread.owns(sp) { None } else { header_at(sp) };
    match header.and_then(StackHeader::fiber) {
        Some(fiber) => Some(&fiber.last_message),
        None => thread.record().map(|record| &record.last_message),
    }
}

/// Keeps the message of a failed call, made by code at `sp`.
///
/// A signal handler's message is lost if it interrupted this function, or C reading the message.
pub(crate) fn keep_message(thread: &ThreadState, sp: usize, message: &str) {
    let message = Some(message.to_owned());
    let place = place(thread, sp).and_then(|place| place.try_borrow_mut().ok());
    let before = place.map(|mut place| std::mem::replace(&mut *place, message));
    drop(before);
}

/// Calls `read` with the message for code at `sp`, if there is one.
///
/// If this is a signal handler, and has interrupted a change of the message, there is none.
pub(crate) fn with_message<R>(thread: &ThreadState, sp: usize, read: impl FnOnce(&str) -> R) -> Option<R> {
    let message = place(thread, sp)?.try_borrow().ok()?;
    message.as_deref().map(read)
}

/// Sets the message that C reads with [`last_message`](crate::c::last_message).
///
/// Call it in an exported function, before that returns its error value to C:
///
/// ```
/// use std::ffi::c_int;
///
/// /// Returns the square root; -1 for a negative number.
/// #[upcall::export(on_panic = -1)]
/// extern "C" fn root(number: c_int) -> c_int {
///     if number < 0 {
///         upcall::set_last_message(format_args!("{number} is negative"));
///         return -1;
///     }
///     f64::from(number).sqrt() as c_int
/// }
///
/// assert_eq!(root(-4), -1);
/// let mut message = [0u8; 32];
/// // SAFETY: the buffer is valid for writing 32 bytes.
/// let length = unsafe { upcall::c::last_message(message.as_mut_ptr().cast(), 32) };
/// assert_eq!(&message[..length as usize], b"-4 is negative");
/// ```
///
/// On a fiber's stack, this is the fiber's message, and elsewhere the thread's. It replaces the one
/// from before. The message of a panic or a refusal is set by upcall itself.
///
/// The thread is attached if it was not. Do not call this in signal handlers: it allocates.
///
/// # Panics
/// If `message` panics when it is formatted. The message from before stays.
pub fn set_last_message(message: impl Display) {
    let message = message.to_string();
    // An allocator calls from our code, which may be using the thread's record.
    if in_own_code() {
        return;
    }
    let (thread, sp) = (ThreadState::current(), stack_pointer());
    let _attached = Attached::new(thread, sp);
    keep_message(thread, sp, &message);
}
