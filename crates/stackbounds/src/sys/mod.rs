//! The answers of the operating system and of the processor: the one place to edit for a port.
//!
//! A system is one file here and its line below. The file imports all functions of `unix`, or of
//! `portable` if the system is no Unix, and defines anew those with a better answer. An
//! architecture is one file in [`isa`]. Caching, estimates, registered stacks and locks are
//! implemented above this folder, for all platforms alike.
//!
//! # Stacks
//!
//! - `thread_stack(sp)`: the range of the calling thread's own stack, without guard pages. `None`
//!   if the system does not tell. `sp` is the stack pointer of the call, for systems that need it
//!   to bound their answer. The answer need not contain it. Called once a thread; may allocate and
//!   be slow.
//! - `TELLS_OF_STACK_IN_USE`: whether `thread_stack` may answer for the stack of its caller instead
//!   of the thread's own. If so, upcall calls it before it leaves that stack, and nobody calls it
//!   on a registered one.
//! - `ask_again(known, sp)`: the same range later, when SP is deeper than before.
//! - `is_one_mapping(low, sp)`: whether all of `low..sp`, with the page of `sp` (in use), is one
//!   mapping. `true` on platforms without such a check.
//! - `is_readable(address)`: whether the page is readable. A stack that grows on demand may do so
//!   at this call. `true` on platforms without such a check.
//! - `page_size()`: in bytes.
//! - `on_alternate_stack(sp)`: whether `sp` is on the alternate stack, where signal handlers run.
//!
//! All but `thread_stack` must be async-signal-safe.
//!
//! # Forks, and the locks that take part in them
//!
//! - `sleep_while(number, value, deadline)` returns at once if `number` is not `value`. Otherwise
//!   it returns after a change with `wake` or `wake_all`, after the deadline, after a signal
//!   handler, or spuriously. `TimedOut` is returned only after the deadline, `Signalled` only after
//!   a handler. Systems not reporting handlers never return `Signalled`.
//! - `wake` wakes at least one sleeper, `wake_all` wakes all.
//! - `activity_of(thread)`: the activity of a thread of this process, given by its number.
//! - `thread_number()` and `process_number()`: the numbers of the calling thread and of its
//!   process. In a child, the forking thread has the process's number.
//! - `thread_handle()`: the calling thread's handle in the threads library.
//! - `first_thread()`: the handle of the thread with the process's number, if it can be known.
//! - `watch(..)`: makes the system call three functions before and after each fork.
//! - `make_wiped_page()`: a word that is 0 in children of forks, if the system supports that.

#![cfg_attr(
    any(stackbounds_no_query, not(target_os = "linux")),
    allow(dead_code, reason = "only Linux uses everything")
)]

pub mod isa;
#[allow(dead_code, reason = "each platform defines some of its functions anew")]
mod portable;
#[cfg(unix)]
mod unix;

/// A platform's description of the calling thread's own stack.
#[derive(Clone, Copy, Debug)]
pub struct ThreadStack {
    /// Lowest usable address.
    pub low: usize,
    /// One past the highest address.
    pub high: usize,
    /// The lowest address to which the stack may grow later, at most `low`.
    ///
    /// With SP between this and `low`, the caller checks whether the stack has grown.
    pub may_grow_to: usize,
    /// The stack limit in bytes from which `low` was computed. `None` if no limit applies that
    /// could change.
    pub limit: Option<usize>,
}

/// The reason for which a sleep on a number ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The number has changed, or the wake-up is spurious.
    Changed,
    /// The deadline has passed.
    TimedOut,
    /// A signal handler has run on the thread.
    Signalled,
}

/// The activity of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It runs, waits for a core, or is in a system call that does not wait for others.
    Busy,
    /// It sleeps until others wake it.
    Asleep,
    /// The thread does not exist.
    Gone,
    Unknown,
}

macro_rules! platforms {
    ($($file:literal if $when:meta),* $(,)?) => {
        $(#[cfg_attr($when, path = $file)])*
        #[cfg_attr(not(any($($when),*)), path = "unsupported.rs")]
        mod selected;
    };
}

platforms! {
    "linux.rs" if target_os = "linux",
    "android.rs" if target_os = "android",
    "macos.rs" if target_vendor = "apple",
    "freebsd.rs" if target_os = "freebsd",
    "openbsd.rs" if target_os = "openbsd",
    "windows.rs" if windows,
}

#[cfg(stackbounds_no_query)]
use portable as stacks;
#[cfg(not(stackbounds_no_query))]
use selected as stacks;

pub use selected::{
    activity_of, first_thread, make_wiped_page, process_number, sleep_while, thread_handle, thread_number,
    wake, wake_all, watch,
};
pub use stacks::{
    TELLS_OF_STACK_IN_USE, ask_again, is_one_mapping, is_readable, on_alternate_stack, page_size,
    thread_stack,
};
