#![doc = include_str!("../README.md")]
#![warn(missing_debug_implementations)]

mod bounds;
mod cache;
#[doc(hidden)]
pub mod for_upcall;
mod fork;
mod registration;
mod registry;
mod sys;

pub use bounds::{Accuracy, StackBounds};
pub use registration::{RegisterError, Registration, register};
pub use sys::isa::stack_pointer;

/// The bounds of the stack in use: the thread's own, a [`register`]ed one, or an estimate.
///
/// On an undescribed stack the answer is an [`Accuracy::Estimated`] window, from 32 KiB below the
/// stack pointer to 1 KiB above it.
///
/// # Cost
/// The thread's first call asks the operating system (see [`thread`]). After that, a call costs two
/// comparisons on the thread's own stack, and two or four on another one. An estimate is computed
/// anew by each call, without a system call.
///
/// # Guards and changed limits
/// The system's answer may be wrong: `setrlimit` changes it, and hosts put guard pages on stacks.
/// So on Linux, a call from 128 KiB deeper than all before checks whether the next 256 KiB are
/// mapped and readable. If some of them are not, the stack ends there in the answer. A caller
/// asking again every 128 KiB of depth always gets the truth.
///
/// # Signal handlers
/// The query allocates and reads files, which a signal handler must not do. On an alternate signal
/// stack, the handler gets an estimate, and no query is made. A handler running on the thread's
/// stack, or installed with `SS_AUTODISARM`, is not recognised as one. If a thread has such
/// handlers, let it call [`thread`] once beforehand.
///
/// # Origin
/// The two cached ranges follow `callbackUpdateSystemStack` of Go's runtime. So does this rule: an
/// answer not containing the stack pointer is not believed for the stack in use.
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
    cache::at(stack_pointer())
}

/// The bounds of the stack around `sp`, for code that runs on another stack at the moment.
///
/// `sp` is a stack pointer of the calling thread, current or saved at a switch to another stack.
/// For example, a runtime running its own code on its own stack asks for its caller's.
///
/// `sp` is only compared, never dereferenced. For an address that was never a stack pointer of this
/// thread, the answer is the known range around the address, or an estimate.
#[inline]
pub fn at(sp: usize) -> StackBounds {
    cache::at(sp)
}

/// The calling thread's own stack as the operating system describes it, whichever stack is in use.
///
/// Returns `None` if the system does not tell (see the table of platforms). In a signal handler on
/// an alternate stack, also returns `None` if the thread has not asked before.
///
/// Windows tells of the stack in use only. This crate notes the stacks of threads that begin after
/// it was loaded, and of a program's first thread. Any other thread must ask before it leaves its
/// own stack, or becomes a fiber: if it first asks as a fiber, its own stack stays unknown. On a
/// [`register`]ed stack, the first answer is `None`, and the thread may ask again.
///
/// The answer is cached, and corrected by later calls from deeper (see [`current`]). On Linux the
/// query takes 0.3–0.7 µs on most threads. On the main thread it takes tens of µs, since its stack
/// is looked up in `/proc/self/maps`. A main thread without a stack limit reports the 64 MiB below
/// the stack pointer of the first call, and more as it gets deeper.
pub fn thread() -> Option<StackBounds> {
    cache::own(stack_pointer())
}

/// The bytes certainly remaining on the stack in use; `None` on an undescribed stack.
///
/// A recursive function calls this before each level. Below its threshold it stops, or moves to a
/// larger stack. It treats `None` like "nearly used up":
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
    cache::at(sp).room_below(sp)
}
