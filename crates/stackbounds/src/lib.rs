#![doc = include_str!("../README.md")]
#![warn(missing_debug_implementations)]

mod bounds;
mod fork;
mod registration;
mod registry;
mod slots;
mod sys;

pub use bounds::{Accuracy, StackBounds};
pub use registration::{RegisterError, Registration, register};
pub use sys::isa::stack_pointer;
#[doc(hidden)]
pub use {
    registration::register_slots,
    registry::Kind,
    slots::Around,
    sys::isa::{code_pointer, valgrind},
};

/// The bounds of the stack in use, whichever it is: the thread's own, a [`register`]ed one, or, when nobody
/// described it, an [`Accuracy::Estimated`] window from 32 KiB below the stack pointer to 1 KiB above it.
///
/// The operating system is asked once a thread, at its first question (see [`thread`]). After that a call
/// costs two comparisons on the thread's own stack, and two or four on another. An estimate is made anew
/// for each call; it makes no system call.
///
/// Asking allocates and reads files, so a signal handler must not: on an alternate stack it gets an estimate, and nothing is asked. One that runs on the
/// thread's stack, or was installed with `SS_AUTODISARM`, does not look like a handler: a thread that has such calls [`thread`] once beforehand.
///
/// The two cached slots, and the rule that an answer not containing the stack pointer is not believed for the
/// stack in use, follow `callbackUpdateSystemStack` of Go's runtime.
///
/// ```
/// fn depth_left() -> Option<usize> {
///     let stack = stackbounds::current();
///     stack.room_below(stackbounds::stack_pointer())
/// }
/// # let _ = depth_left();
/// ```
#[inline]
pub fn current() -> StackBounds {
    slots::at(stack_pointer())
}

/// [`current`], for a stack pointer that the calling thread has, or had on a stack that it left for a while:
/// a runtime that runs its own code on a stack of its own asks for its caller's.
///
/// `sp` is only compared, never read through. An address that was never this thread's stack pointer
/// gets whatever is known about the range that it lies in.
#[inline]
pub fn at(sp: usize) -> StackBounds {
    slots::at(sp)
}

/// The calling thread's own stack as the operating system describes it, wherever the stack pointer is now.
///
/// `None` where the system does not tell (see the table of platforms), and in a
/// signal handler on an alternate stack whose thread has not asked before.
///
/// The answer is kept for the thread's life. On Linux the question costs 0.3–0.7 µs on a thread, and tens of µs on the
/// main thread, whose stack is looked up in `/proc/self/maps`. A main thread without a stack limit
/// reports the 64 MiB below the stack pointer of the first question, and more when it has come to need more.
pub fn thread() -> Option<StackBounds> {
    slots::own(stack_pointer())
}

/// The bytes certainly left on the stack in use; `None` on a stack that nobody described.
///
/// A recursion that must not overflow asks before each level, and stops, or moves to a larger stack, below
/// its threshold, and treats `None` as it would treat "nearly used up":
///
/// ```
/// fn depth(level: u32) -> Result<u32, &'static str> {
///     if stackbounds::remaining().is_none_or(|left| left < 64 * 1024) {
///         return Err("nested too deeply");
///     }
///     if level == 0 { Ok(0) } else { depth(level - 1).map(|d| d + 1) }
/// }
/// # // Where the platform does not tell, it stops at once.
/// # if stackbounds::remaining().is_none() { return assert!(depth(10).is_err()) }
/// assert_eq!(depth(10), Ok(10));
/// assert!(depth(10_000_000).is_err());
/// ```
#[inline]
pub fn remaining() -> Option<usize> {
    let sp = stack_pointer();
    slots::at(sp).room_below(sp)
}

/// [`thread`] for a caller that runs on another stack for the moment; see [`at`]. Not public API.
#[doc(hidden)]
pub fn thread_at(sp: usize) -> Option<StackBounds> {
    slots::own(sp)
}

/// [`at`], for callers that keep slots of their own: the range around `sp` that has one answer, unless that is the thread's own
/// stack. Not public API.
#[doc(hidden)]
pub fn around(sp: usize) -> Option<Around> {
    slots::around(sp)
}

/// What the registry alone knows about an address, which need not be anybody's stack pointer. Looks at nothing of the thread's and asks
/// nobody, so the handler of any signal may call it, on any thread. Not public API.
#[doc(hidden)]
pub fn described(address: usize) -> Around {
    let (found, version) = registry::find(address);
    Around { low: found.low, high: found.high, kind: found.kind, version }
}

/// Counts the registrations and unregistrations of the process. Not public API.
#[doc(hidden)]
#[inline(always)]
pub fn version() -> usize {
    registry::version()
}

/// Leaves it to the caller to hold the [lock](hold_lock) of the registry during forks, among others in an order of its own. `false` if
/// that is done here already, since a stack has been registered. Not public API.
#[doc(hidden)]
pub fn leave_forks_to_caller() -> bool {
    fork::leave_to_caller()
}

/// Keeps the registry of stacks from being changed until the result is dropped. Not public API.
#[doc(hidden)]
pub fn hold_lock() -> impl Sized + 'static {
    registry::lock()
}

/// Whether `sp` lies on the calling thread's alternate signal stack. One system call, async-signal-safe. Not public API.
#[doc(hidden)]
pub fn on_alternate_stack(sp: usize) -> bool {
    sys::on_alternate_stack(sp)
}
