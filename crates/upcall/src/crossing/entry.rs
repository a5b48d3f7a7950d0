//! The entry of an upcall: its choices, and the way in.

use std::panic::{AssertUnwindSafe, catch_unwind};

use stackbounds::stack_pointer;

use super::error::{self, UpcallError, caught};
use super::foreign_unwind::abort_on_foreign_unwind;
use super::{as_chosen, enter_off_own_stack};
use crate::coroutine::spans::{SpanKind, UpcallSpan};
use crate::drop_guards::drop_ignoring_panics;
use crate::function::Function;
use crate::thread::ThreadState;

/// The stack that an upcall runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackChoice {
    /// The caller's stack if its bounds are exact and leave enough room, else a pooled stack. The
    /// default.
    #[default]
    Auto,
    /// The caller's stack, for hosts that scan or check their stacks: Ruby, CPython, the JVM,
    /// PostgreSQL, Boehm GC.
    ///
    /// If the bounds are exact and leave too little room, the upcall is refused. If they are only
    /// estimated, nothing is promised.
    Caller,
    /// A pooled stack, always.
    Pooled,
}

/// The choices for one upcall: made by [`entry`], used up by [`Entry::enter`].
#[derive(Clone, Copy, Debug)]
#[must_use = "an entry does nothing until it is entered"]
pub struct Entry {
    pub(super) choice: StackChoice,
    pub(super) min_stack: Option<usize>,
    keeps_panic: bool,
    refuses_after_panic: bool,
}

/// Begins an upcall with choices. [`enter`] is `entry().enter`.
///
/// ```
/// use upcall::StackChoice;
///
/// let sum = upcall::entry().stack(StackChoice::Pooled).min_stack(1 << 20).enter(|| 1 + 1)?;
/// assert_eq!(sum, 2);
/// # Ok::<(), upcall::UpcallError>(())
/// ```
#[inline]
pub const fn entry() -> Entry {
    Entry { choice: StackChoice::Auto, min_stack: None, keeps_panic: false, refuses_after_panic: false }
}

/// Runs `f` as an upcall, from any stack, and catches its panics.
///
/// `f` has at least [`min_stack`](crate::Config::min_stack) bytes of stack (256 KiB by default).
/// Call this first thing in an `extern "C"` function:
///
/// ```
/// #[unsafe(no_mangle)]
/// pub extern "C" fn parse_length(text: *const u8, len: usize) -> i64 {
///     upcall::enter(|| {
///         // SAFETY: the C side promises `len` readable bytes.
///         let text = unsafe { std::slice::from_raw_parts(text, len) };
///         std::str::from_utf8(text).unwrap().parse::<i64>().unwrap()
///     })
///     .unwrap_or(-1) // what C gets after a panic
/// }
/// # assert_eq!(parse_length(c"42".as_ptr().cast(), 2), 42);
/// ```
///
/// On the thread's own stack an upcall costs little more than a plain call, and makes no system
/// call. The thread's first upcall attaches it: upcall asks the OS for the bounds of its stack and
/// makes a thread record. The thread's exit frees the record.
///
/// **Large arrays:** the compiler inlines `f` into the function called by C, and `f`'s frame is
/// then on C's stack. Put large local arrays into a function marked `#[inline(never)]`.
///
/// # Errors
/// If `f` panics, or is refused (see [`Refusal`](crate::Refusal)). The error owns the panic:
/// [`UpcallError::into_payload`] takes it out. If you drop the error, the panic becomes pending at
/// the enclosing [`downcall`](crate::downcall), and is raised there with its original payload when
/// C has returned. Its message becomes the last message of the thread or fiber, readable for C by
/// [`last_message`](crate::c::last_message).
///
/// # Aborts
/// If the call returns on another thread, because the host moved a suspended coroutine there. On a
/// thread's own stack, only downcalls notice this.
#[inline]
pub fn enter<R>(f: impl FnOnce() -> R) -> Result<R, UpcallError> {
    entry().enter(f)
}

impl Entry {
    /// Chooses the stack.
    #[inline]
    pub const fn stack(mut self, choice: StackChoice) -> Self {
        self.choice = choice;
        self
    }

    /// Sets how many bytes of stack this upcall needs.
    ///
    /// The default is the process's [`min_stack`](crate::Config::min_stack); with
    /// [`StackChoice::Caller`], it is 16 KiB.
    #[inline]
    pub const fn min_stack(mut self, bytes: usize) -> Self {
        self.min_stack = Some(bytes);
        self
    }

    /// Keeps a panic of this upcall in its error: a drop of the error ends the panic.
    ///
    /// It does not go on at an enclosing [`downcall`](crate::downcall). This is for functions that
    /// give C an error of their own after a panic: an exception of an interpreter, or a documented
    /// error code. C then reports the panic to its caller by its own means.
    ///
    /// ```
    /// use upcall::{downcall, entry};
    ///
    /// let keeps = || entry().keep_panic().enter(|| panic!("no such row")).unwrap_or(-1);
    /// assert_eq!(downcall(keeps), -1);
    /// ```
    ///
    /// The unwinding of a [dropped fiber](crate::Fiber#dropping) goes on nevertheless.
    #[inline]
    pub const fn keep_panic(mut self) -> Self {
        self.keeps_panic = true;
        self
    }

    /// Refuses the upcall ([`Refusal::AfterPanic`](crate::Refusal::AfterPanic)) while a panic is
    /// pending at the enclosing [`downcall`](crate::downcall).
    ///
    /// Only the first panic reaches the caller of C. After it, C goes on with a value that only the
    /// panic explains. So this is for C that calls back many times before it looks at a result.
    ///
    /// ```
    /// use upcall::{Refusal, downcall, entry};
    ///
    /// let callback = |n: i32| entry().refuse_after_panic().enter(|| assert!(n < 3));
    /// let raised = std::panic::catch_unwind(|| {
    ///     downcall(|| {
    ///         assert!(callback(1).is_ok());
    ///         assert!(callback(3).is_err());
    ///         assert_eq!(callback(1).unwrap_err().refusal(), Some(&Refusal::AfterPanic));
    ///     })
    /// });
    /// assert!(raised.is_err());
    /// assert!(callback(1).is_ok());
    /// ```
    ///
    /// [`panic_is_pending`](crate::panic_is_pending) makes the same check, at the same cost.
    #[inline]
    pub const fn refuse_after_panic(mut self) -> Self {
        self.refuses_after_panic = true;
        self
    }

    #[inline(always)]
    fn is_default(&self) -> bool {
        matches!(self.choice, StackChoice::Auto) && self.min_stack.is_none()
    }

    /// Runs `f` as an upcall with these choices. Errors and aborts are those of [`enter`].
    #[inline]
    pub fn enter<R>(self, f: impl FnOnce() -> R) -> Result<R, UpcallError> {
        let sp = stack_pointer();
        let thread = ThreadState::current();
        if self.refuses_after_panic && thread.calls.has_pending_panics() {
            if let Some(refused) = error::after_panic(thread, sp) {
                drop_ignoring_panics(|| drop(f));
                return Err(refused);
            }
        }
        if self.is_default() && thread.has_room_at(sp) {
            let function = Function::with(&f);
            let running = thread.begin_upcall(sp, function);
            let result =
                catch_unwind(AssertUnwindSafe(|| UpcallSpan::run(function, || abort_on_foreign_unwind(f))));
            drop(running);
            return result.map_err(|payload| self.failed(caught(payload, sp)));
        }
        let (result, failed) = if self.is_default() {
            enter_off_own_stack(thread, sp, f)
        } else {
            as_chosen(thread, sp, f, self)
        };
        match failed {
            // SAFETY: `Ended` has a result if it has no error.
            None => Ok(unsafe { result.assume_init() }),
            Some(failed) => Err(self.failed(failed)),
        }
    }

    /// The error in the form that this entry asks for.
    #[inline(always)]
    fn failed(self, error: UpcallError) -> UpcallError {
        if self.keeps_panic { error.without_forwarding() } else { error }
    }
}
