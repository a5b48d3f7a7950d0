//! Failed upcalls: their error, and where a panic goes.
//!
//! Rule: **panics never cross C frames as unwinding.** The upcall catches them, and C gets the
//! value declared by the exported function.
//!
//! Rule: **a payload belongs to whoever holds it.** The error holds the payload, and the number of
//! the enclosing downcall, if there is one. Code that takes the payload out is its only owner. If
//! the error is dropped with the payload inside, the payload becomes pending at that downcall and
//! is raised when C returns. This happens only on the downcall's thread, and only while the
//! downcall is open. So the number is looked up at the drop, and not before: an error may be kept
//! for any time and sent to any thread.
//!
//! The unwinding of a dropped fiber is not a panic, and no error holds its payload: it becomes
//! pending at the downcall at once.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use stackbounds::stack_pointer;

use super::enclosing::{self, OwnFrame, Reach};
use super::last_message::keep_message;
use super::payload::{Killed, message_of};
use super::refusal::{Refusal, SIGNAL_HANDLER};
use crate::coroutine::Cancelled;
use crate::drop_guards::drop_ignoring_panics;
use crate::stack::{StackHeader, header_at, service};
use crate::sync::in_own_code;
use crate::thread::{CallNumber, Payload, PendingPanic, ThreadState};

/// Why an upcall gave no value: its Rust code panicked, or the upcall was refused.
///
/// `Display` gives the message.
///
/// ```
/// let error = upcall::enter(|| panic!("no such row")).unwrap_err();
/// assert_eq!(error.message(), "no such row");
/// assert!(error.refusal().is_none());
/// assert_eq!(*error.into_payload().unwrap().downcast::<&str>().unwrap(), "no such row");
/// ```
///
/// **A panic belongs to whoever holds this error.** [`into_payload`](Self::into_payload) takes the
/// payload out, and nobody else raises it then. This is right for a binding with an error of its
/// own for a panic. If you drop the error, as `unwrap_or` does, the panic goes on at the enclosing
/// [`downcall`](crate::downcall), when C has returned. If that downcall has returned before, or is
/// another thread's, the panic ends here.
///
/// ```
/// use std::panic::catch_unwind;
/// use upcall::{downcall, enter};
///
/// fn c_calls_back() -> i32 {
///     enter(|| panic!("no such row")).unwrap_or(-1)
/// }
/// assert!(catch_unwind(|| downcall(c_calls_back)).is_err());
///
/// fn c_calls_back_and_keeps() -> i32 {
///     enter(|| panic!("no such row")).map_err(|error| error.into_payload()).unwrap_or(-1)
/// }
/// assert_eq!(downcall(c_calls_back_and_keeps), -1);
/// ```
pub struct UpcallError(NonNull<Inner>);

/// The kind of an [`UpcallError`], from [`UpcallError::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpcallErrorKind<'a> {
    /// The Rust code of the upcall panicked.
    Panicked,
    /// The upcall was not run, and its closure was dropped.
    Refused(&'a Refusal),
}

enum Inner {
    Panicked {
        message: String,
        /// `None` for the unwinding of a dropped fiber: its payload is pending at the downcall
        /// already.
        payload: Option<Payload>,
        /// The downcall where the panic goes on if the error is dropped with it.
        goes_on_at: Option<CallNumber>,
    },
    Refused {
        message: String,
        refusal: Refusal,
    },
}

/// The error of all refused upcalls from signal handlers. It is static, since a handler must not
/// allocate.
static IN_HANDLER: InHandler =
    InHandler(Inner::Refused { message: String::new(), refusal: Refusal::SignalHandler });

struct InHandler(Inner);

// SAFETY: only a payload is not `Sync`. This static has none, and is never written.
unsafe impl Sync for InHandler {}

impl UpcallError {
    /// The message of the panic, or of the refusal.
    ///
    /// If a payload is not a string, the message is `a panic whose payload is not a string`.
    pub fn message(&self) -> &str {
        match self.inner() {
            Inner::Refused { refusal: Refusal::SignalHandler, .. } => SIGNAL_HANDLER,
            Inner::Panicked { message, .. } | Inner::Refused { message, .. } => message,
        }
    }

    /// The kind of this error: the upcall panicked, or was refused.
    ///
    /// ```
    /// use upcall::{Refusal, UpcallErrorKind, enter, entry};
    ///
    /// let panicked = enter(|| panic!("no such row")).unwrap_err();
    /// assert_eq!(panicked.kind(), UpcallErrorKind::Panicked);
    /// let refused = entry().min_stack(usize::MAX).enter(|| ()).unwrap_err();
    /// assert!(matches!(refused.kind(), UpcallErrorKind::Refused(Refusal::OutOfMemory { .. })));
    /// ```
    pub fn kind(&self) -> UpcallErrorKind<'_> {
        match self.inner() {
            Inner::Panicked { .. } => UpcallErrorKind::Panicked,
            Inner::Refused { refusal, .. } => UpcallErrorKind::Refused(refusal),
        }
    }

    /// The reason of a refusal; `None` after a panic.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.kind() {
            UpcallErrorKind::Panicked => None,
            UpcallErrorKind::Refused(refusal) => Some(refusal),
        }
    }

    /// Takes out the panic's payload, for `std::panic::resume_unwind`.
    ///
    /// The payload is the caller's alone then: it does not go on at an enclosing
    /// [`downcall`](crate::downcall).
    ///
    /// `None` after a refusal. Also `None` if the upcall's fiber was dropped during a wait and a
    /// downcall encloses the upcall: the fiber's unwinding goes on there in any case.
    pub fn into_payload(self) -> Option<Payload> {
        let inner = ManuallyDrop::new(self).0;
        // SAFETY: this is the only call for `inner`: `self` is consumed, and its `drop` does not
        // run.
        match *unsafe { take_own(inner) }? {
            Inner::Panicked { payload, .. } => payload,
            Inner::Refused { .. } => None,
        }
    }

    /// Whether Rust code hears of the failure after C has returned, even if this error is dropped
    /// now.
    ///
    /// It does if the panic goes on at an enclosing [`downcall`](crate::downcall), or if an earlier
    /// one does. C then needs only a value that makes it return.
    ///
    /// ```
    /// use upcall::{downcall, enter};
    ///
    /// let alone = enter(|| panic!("no such row")).unwrap_err();
    /// assert!(!alone.goes_on());
    /// let below_c = std::panic::catch_unwind(|| {
    ///     downcall(|| assert!(enter(|| panic!("no such row")).unwrap_err().goes_on()))
    /// });
    /// assert!(below_c.is_err());
    /// ```
    pub fn goes_on(&self) -> bool {
        match self.inner() {
            Inner::Panicked { payload: Some(payload), goes_on_at, .. } => {
                payload.is::<Cancelled>()
                    || goes_on_at.is_some_and(|call| call.is_open(ThreadState::current()))
            }
            Inner::Panicked { payload: None, .. } => true,
            Inner::Refused { refusal, .. } => {
                matches!(refusal, Refusal::FiberDropped | Refusal::AfterPanic)
            }
        }
    }

    /// Keeps the panic in this error: a drop does not send it on.
    #[cold]
    #[inline(never)]
    pub(super) fn without_forwarding(self) -> Self {
        if !ptr::eq(self.0.as_ptr(), &IN_HANDLER.0) {
            // SAFETY: it is not the static, so it comes from `new` and belongs to this error. No
            // reference to it is live.
            if let Inner::Panicked { goes_on_at, .. } = unsafe { &mut *self.0.as_ptr() } {
                *goes_on_at = None;
            }
        }
        self
    }

    fn new(inner: Inner) -> Self {
        Self(NonNull::from(Box::leak(Box::new(inner))))
    }

    fn inner(&self) -> &Inner {
        // SAFETY: it comes from `new`, or is the static; both are valid while the error exists.
        unsafe { self.0.as_ref() }
    }
}

/// Takes the box out of an [`UpcallError`]; `None` for the static.
///
/// # Safety
/// Call this once for each error, and do not use its `inner` afterwards.
unsafe fn take_own(inner: NonNull<Inner>) -> Option<Box<Inner>> {
    let own = !ptr::eq(inner.as_ptr(), &IN_HANDLER.0);
    // SAFETY: it is not the static, so it comes from `new`. The caller guarantees that nobody uses
    // it after this.
    own.then(|| unsafe { Box::from_raw(inner.as_ptr()) })
}

/// Drops the `inner` of an error, and sends its panic on.
///
/// # Safety
/// Call this once for each error, and do not use its `inner` afterwards.
#[cold]
#[inline(never)]
unsafe fn drop_own(inner: NonNull<Inner>) {
    // SAFETY: the caller guarantees that this is the last use of `inner`.
    let own = unsafe { take_own(inner) };
    let Some(Inner::Panicked { payload: Some(payload), goes_on_at, .. }) = own.map(|own| *own) else {
        return;
    };
    let unclaimed = match goes_on_at {
        Some(call) => forward(call, payload),
        None => Some(payload),
    };
    if let Some(payload) = unclaimed {
        drop_ignoring_panics(|| drop(payload));
    }
}

/// Makes a payload pending at an enclosing downcall. Returns it if the downcall is not open on this
/// thread.
///
/// If an earlier panic is pending there, drops the payload: a later panic is reported to C only.
fn forward(call: CallNumber, payload: Payload) -> Option<Payload> {
    match call.set_pending_panic(ThreadState::current(), payload) {
        PendingPanic::Set => None,
        PendingPanic::AlreadySet(later) => {
            drop_ignoring_panics(|| drop(later));
            None
        }
        PendingPanic::CallReturned(payload) => Some(payload),
    }
}

impl Drop for UpcallError {
    // Inline, so that the caller's frame needs no room for an error if there is none.
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the error is being dropped, so this is the last use of its `inner`.
        unsafe { drop_own(self.0) };
    }
}

// SAFETY: an error owns a `String` and a payload, both `Send`, or refers to a static.
unsafe impl Send for UpcallError {}

impl fmt::Debug for UpcallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.refusal().is_some() { "Refused" } else { "Panicked" };
        out.debug_tuple(name).field(&self.message()).finish()
    }
}

impl fmt::Display for UpcallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.message())
    }
}

impl std::error::Error for UpcallError {}

// SAFETY: only the payload is not `Sync`. A shared reference tells no more of it than whether it is
// a `Cancelled`.
unsafe impl Sync for UpcallError {}

/// Makes the error of an upcall refused at `sp`, on a service stack: too little room may be the
/// reason.
#[cold]
#[inline(never)]
pub(super) fn refused(thread: &ThreadState, sp: usize, refusal: Refusal) -> UpcallError {
    if refusal == Refusal::SignalHandler {
        return UpcallError(NonNull::from(&IN_HANDLER.0));
    }
    service::run(|| {
        let message = refusal.to_string();
        keep_message(thread, sp, &message);
        UpcallError::new(Inner::Refused { message, refusal })
    })
}

/// Makes the error of an upcall that panicked, and finds the downcall where the panic may go on.
#[cold]
#[inline(never)]
pub(super) fn caught(payload: Payload, upcall_sp: usize) -> UpcallError {
    let thread = ThreadState::current();
    let message = message_of(&*payload);
    let reach = if payload.is::<Killed>() { Reach::Coroutine } else { Reach::Beneath };
    let enclosing = enclosing::of_upcall(thread, upcall_sp, reach).map(|call| CallNumber::of(thread, call));
    let (payload, goes_on_at) = match enclosing {
        enclosing if payload.is::<Cancelled>() => {
            if let Some(fiber) = header_at(upcall_sp).and_then(StackHeader::fiber) {
                // This holds until C has returned and the payload is raised again.
                fiber.stop_unwinding(enclosing.is_some());
                thread.forget_surroundings();
            }
            let unclaimed = match enclosing {
                Some(call) => forward(call, payload),
                None => Some(payload),
            };
            (unclaimed, None)
        }
        enclosing => (Some(payload), enclosing),
    };
    keep_message(thread, upcall_sp, &message);
    UpcallError::new(Inner::Panicked { message, payload, goes_on_at })
}

/// Refuses an upcall from `sp` if a panic is pending at its enclosing downcall. Looks on a service
/// stack, since C may have little room.
#[cold]
#[inline(never)]
pub(super) fn after_panic(thread: &ThreadState, sp: usize) -> Option<UpcallError> {
    if in_own_code() {
        return None;
    }
    service::run(|| {
        let fiber = header_at(sp).and_then(StackHeader::fiber);
        // A dropped fiber refuses upcalls by itself.
        let refuses = !fiber.is_some_and(|fiber| fiber.refuses.get())
            && enclosing::has_panic(thread, sp, OwnFrame::Last);
        let refusal = Refusal::AfterPanic;
        refuses.then(|| UpcallError::new(Inner::Refused { message: refusal.to_string(), refusal }))
    })
}

/// Whether a panic is pending at the enclosing [`downcall`](crate::downcall): it will be raised
/// when C has returned.
///
/// The unwinding of a dropped fiber counts too.
///
/// Use this in functions called by C, before their [`enter`](crate::enter) or in it. Their work is
/// in vain if a panic is pending, and they can tell C to return at once.
/// [`Entry::refuse_after_panic`](crate::Entry::refuse_after_panic) does this by itself.
///
/// ```
/// use upcall::{downcall, enter, panic_is_pending};
///
/// let raised = std::panic::catch_unwind(|| {
///     downcall(|| {
///         assert!(!panic_is_pending());
///         enter(|| panic!("no such row")).unwrap_or(-1);
///         assert!(panic_is_pending());
///     })
/// });
/// assert!(raised.is_err() && !panic_is_pending());
/// ```
///
/// If no panic is pending on the thread, the cost is next to nothing; otherwise it is a walk of the
/// frames.
#[inline]
pub fn panic_is_pending() -> bool {
    let thread = ThreadState::current();
    thread.calls.has_pending_panics() && waits(thread, stack_pointer())
}

#[cold]
#[inline(never)]
fn waits(thread: &ThreadState, sp: usize) -> bool {
    !in_own_code() && enclosing::has_panic(thread, sp, OwnFrame::Counts)
}

/// Makes the error of an upcall from own code that panicked.
///
/// No downcall encloses it, and the thread's last message stays.
#[cold]
pub(super) fn caught_by_nobody(payload: Payload) -> UpcallError {
    UpcallError::new(Inner::Panicked {
        message: message_of(&*payload),
        payload: Some(payload),
        goes_on_at: None,
    })
}
