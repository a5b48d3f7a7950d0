//! Upcalls that gave no value: the error, and where a panic goes.
//!
//! Rule: **panics never cross C frames as unwinding.** They are caught at the upcall, C gets the value that the
//! function declares, and the payload goes on at the downcall that encloses the upcall, if there is one.

use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use super::enclosing;
use crate::quiet::quietly;
use crate::stack::coroutine::Cancelled;
use crate::stack::{Control, control_at, service};
use crate::thread::{Hot, Payload, record};

/// Why an upcall gave no value: its Rust code panicked, or could not be run where it was asked to run.
///
/// `Display` gives the message.
///
/// ```
/// let error = upcall::enter(|| panic!("no such row")).unwrap_err();
/// assert_eq!(error.message(), "no such row");
/// assert!(error.refusal().is_none());
/// assert_eq!(*error.into_payload().unwrap().downcast::<&str>().unwrap(), "no such row");
/// ```
pub struct Panicked(NonNull<Inner>);

enum Inner {
    Panicked { message: String, payload: Option<Payload> },
    Refused { message: String, refusal: Refusal },
}

/// The error of an upcall that a signal handler made: there for all of them, since it must not be allocated.
static IN_HANDLER: InHandler =
    InHandler(Inner::Refused { message: String::new(), refusal: Refusal::SignalHandler });

struct InHandler(Inner);

// SAFETY: it is never written, and has no payload, which is all that is not `Sync`.
unsafe impl Sync for InHandler {}

const SIGNAL_HANDLER: &str = "the upcall came from a signal handler, on a thread that has nothing in reserve for that, and nothing can be allocated \
     there: call upcall_thread_attach (upcall::attach) on the thread before, or declare the function to run on the caller's stack";

/// Why an upcall was not run. Nothing of it has happened then: the closure was dropped where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It must run on the caller's stack ([`StackChoice::Caller`](crate::StackChoice::Caller)), where provably too little is left.
    NoRoom {
        /// Bytes that the entry asks for.
        needed: usize,
        /// Bytes left on the caller's stack.
        left: usize,
    },
    /// It came from a stack that nobody described, and [`ForeignStacks::Refuse`](crate::ForeignStacks::Refuse) is set.
    ForeignStack {
        /// The caller's stack pointer.
        sp: usize,
    },
    /// It came from C code on the stack of a fiber that was dropped while it waited: C is to return.
    FiberDropped,
    /// As many upcalls of the thread as [allowed](crate::Config::open_upcalls) are open that came from stacks nobody described.
    TooManyOpen {
        /// How many may be.
        limit: usize,
    },
    /// It came from a signal handler on an alternate stack, and would have had to allocate: the thread had made no upcall before, or has no stack and no
    /// room for downcalls in [reserve](crate::attach).
    SignalHandler,
    /// There is no memory for a stack.
    OutOfMemory {
        /// Bytes of stack asked for.
        bytes: usize,
    },
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { needed, left } => write!(
                out,
                "the upcall must run on the caller's stack, which has {left} bytes left of the {needed} that it needs: \
                 call from less deep, lower its min_stack, or let it choose a stack (StackChoice::Auto)"
            ),
            Self::ForeignStack { sp } => write!(
                out,
                "the upcall came from a stack that nobody described (SP {sp:#x}): register the host's stacks \
                 (stackbounds::register), or allow foreign stacks; if the host never switches stacks, its stack pointer is corrupt"
            ),
            Self::FiberDropped => out.write_str(
                "the fiber that the upcall belongs to was dropped: no upcall is served until the C code that made it has returned",
            ),
            Self::TooManyOpen { limit } => write!(
                out,
                "{limit} upcalls of this thread are open that came from stacks nobody described. If the host has so many coroutines, raise \
                 open_upcalls; if it leaves upcalls by longjmp, register its stacks (stackbounds::register, upcall_stack_register), where those \
                 that were left can be told from those that are suspended"
            ),
            Self::SignalHandler => out.write_str(SIGNAL_HANDLER),
            Self::OutOfMemory { bytes } => write!(
                out,
                "there is no memory for a stack of {bytes} bytes: lower min_stack or fiber_stack, or raise the limit on the \
                 process's address space or mappings"
            ),
        }
    }
}

impl Panicked {
    /// The panic's message, or what the refusal says. A payload that is no string has the message
    /// `a panic whose payload is not a string`.
    pub fn message(&self) -> &str {
        match self.inner() {
            Inner::Refused { refusal: Refusal::SignalHandler, .. } => SIGNAL_HANDLER,
            Inner::Panicked { message, .. } | Inner::Refused { message, .. } => message,
        }
    }

    /// Why the upcall was not run, if it was not.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.inner() {
            Inner::Panicked { .. } => None,
            Inner::Refused { refusal, .. } => Some(refusal),
        }
    }

    /// The panic's payload, for `std::panic::resume_unwind`; `None` after a refusal, and when an enclosing
    /// [`downcall`](crate::downcall) on this thread has taken it and will raise it.
    pub fn into_payload(self) -> Option<Payload> {
        let inner = ManuallyDrop::new(self).0;
        // SAFETY: the only time: `self` is gone, and its `drop` does not run.
        match *unsafe { take_own(inner) }? {
            Inner::Panicked { payload, .. } => payload,
            Inner::Refused { .. } => None,
        }
    }

    /// Whether Rust code will hear of it when C has returned: the enclosing downcall has the payload, or the fiber is being dropped.
    pub(super) fn is_on_its_way(&self) -> bool {
        match self.inner() {
            Inner::Panicked { payload, .. } => {
                payload.as_ref().is_none_or(|payload| payload.is::<Cancelled>())
            }
            Inner::Refused { refusal, .. } => *refusal == Refusal::FiberDropped,
        }
    }

    fn new(inner: Inner) -> Self {
        Self(NonNull::from(Box::leak(Box::new(inner))))
    }

    fn inner(&self) -> &Inner {
        // SAFETY: what `new` leaked, or a static.
        unsafe { self.0.as_ref() }
    }
}

/// What a `Panicked` has of its own.
///
/// # Safety
/// Called once for each, last.
unsafe fn take_own(inner: NonNull<Inner>) -> Option<Box<Inner>> {
    let own = !ptr::eq(inner.as_ptr(), &IN_HANDLER.0);
    // SAFETY: then it came from `new`, and nobody uses it after this.
    own.then(|| unsafe { Box::from_raw(inner.as_ptr()) })
}

/// # Safety
/// As for `take_own`.
#[cold]
#[inline(never)]
unsafe fn drop_own(inner: NonNull<Inner>) {
    // SAFETY: the caller's promise.
    let own = unsafe { take_own(inner) };
    if let Some(Inner::Panicked { payload: Some(payload), .. }) = own.map(|own| *own) {
        quietly(|| drop(payload));
    }
}

impl Drop for Panicked {
    // Inline, so that the caller's frame needs no place for an error that is not there.
    #[inline]
    fn drop(&mut self) {
        // SAFETY: nobody uses it after this.
        unsafe { drop_own(self.0) };
    }
}

// SAFETY: it owns a `String` and a payload, which is `Send`, or refers to a static.
unsafe impl Send for Panicked {}

impl fmt::Debug for Panicked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.refusal().is_some() { "Panicked(refused)" } else { "Panicked" };
        out.debug_tuple(name).field(&self.message()).finish()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.message())
    }
}

impl std::error::Error for Panicked {}

// SAFETY: all that is not Sync is the payload, of which a shared reference tells no more than whether it is a `Cancelled`.
unsafe impl Sync for Panicked {}

/// The error of an upcall that was not run. Made on a service stack: too little room may be the reason.
#[cold]
#[inline(never)]
pub(super) fn refused(hot: &Hot, refusal: Refusal) -> Panicked {
    if refusal == Refusal::SignalHandler {
        return Panicked(NonNull::from(&IN_HANDLER.0));
    }
    service::run(|| {
        let message = refusal.to_string();
        record::set_last_panic(hot, &message);
        Panicked::new(Inner::Refused { message, refusal })
    })
}

/// Sends a panic that an upcall caught on its way: to the downcall that encloses the upcall, or into the error.
#[cold]
#[inline(never)]
pub(super) fn caught(payload: Payload, upcall_sp: usize) -> Panicked {
    let hot = Hot::here();
    let message = message_of(&*payload);
    let enclosing = enclosing::of_upcall(hot, upcall_sp);
    if let (Some(fiber), true) = (control_at(upcall_sp).and_then(Control::fiber), payload.is::<Cancelled>()) {
        // Until C has returned and the payload is raised again.
        fiber.stop_unwinding(enclosing.is_some());
        hot.forget_surroundings();
    }
    let left_over = match enclosing {
        Some(call) => match call.leave(payload) {
            Ok(()) => None,
            // The call has the panic that came first; this one is told to C only.
            Err(later) => {
                quietly(|| drop(later));
                None
            }
        },
        None => Some(payload),
    };
    record::set_last_panic(hot, &message);
    Panicked::new(Inner::Panicked { message, payload: left_over })
}

/// What a panic says.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(message) = payload.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = payload.downcast_ref::<String>() {
        message.clone()
    } else if payload.is::<Cancelled>() {
        "the fiber was dropped while it waited".to_owned()
    } else {
        "a panic whose payload is not a string".to_owned()
    }
}
