//! Faults of threads, passed from the system's handlers to a report.
//!
//! Contract of each file:
//!
//! - `install(only_overflows, report)` has the system call `report` at each fault, on the thread of
//!   the fault. Afterwards the handlers installed before ours get their turn. If `only_overflows`,
//!   it may leave out the faults that no stack overflow raises. To be called under a lock, until it
//!   has succeeded once.
//! - `keep_room()` has the system keep room for handlers of an overflow on the stacks of the
//!   calling thread, unless they run on an alternate stack.
//!
//! `report` may be called at any instruction of any code, so it allocates nothing and waits for
//! nobody. It may change the thread's error number: the caller restores it.

#[cfg_attr(unix, path = "signals.rs")]
#[cfg_attr(windows, path = "exceptions.rs")]
mod selected;

pub(crate) use selected::{install, keep_room};

/// A fault of the calling thread.
#[derive(Clone, Copy)]
pub(crate) struct Raised {
    /// The system's name of the fault, and the meaning.
    pub what: &'static str,
    /// The system says so: the stack in use has overflowed. Others are recognised by the address.
    pub overflows: bool,
    /// The address of the invalid access, if the fault is one and the system tells the address.
    pub address: Option<usize>,
    /// The address of the faulting instruction; `None` if it is not known.
    pub code: Option<usize>,
    /// SP at this instruction; `None` if it is not known.
    pub sp: Option<usize>,
}
