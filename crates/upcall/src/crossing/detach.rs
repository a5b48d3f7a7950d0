//! Detaching a thread before its exit.

use std::fmt;

use stackbounds::stack_pointer;

use super::{Refusal, enter};
use crate::stack::service;
use crate::thread::{Hot, Record, record};

/// Why a thread was not detached: something of its is in the middle, or may be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InUse {
    /// An upcall has not returned, which made no downcall.
    Upcall,
    /// Downcalls have not returned: those inside which this code runs, and those of suspended coroutines and fibers.
    Downcalls {
        /// How many.
        open: usize,
    },
    /// Stacks of upcall's are in use, by upcalls that have not returned, or by fibers that have not ended.
    Stacks {
        /// How many.
        in_use: usize,
    },
    /// A [`LocalRuntime`](crate::LocalRuntime) has not ended, a [`wait`](crate::wait) or the use of a [`FiberLocal`](crate::FiberLocal) has not
    /// returned; or this is a worker of [`spawn`](crate::spawn).
    Kept,
    /// Calls were left by `longjmp`, by all appearances. A host that copies stacks could still have them return.
    Left {
        /// How many.
        calls: usize,
    },
    /// This is a signal handler on a stack of its own.
    SignalHandler,
    /// There are values of [`FiberLocal`](crate::FiberLocal) variables, and the upcall that was to drop them was refused.
    Refused(Refusal),
}

impl std::error::Error for InUse {}

impl fmt::Display for InUse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the thread stays attached: ")?;
        match self {
            Self::Upcall => out.write_str("an upcall (C → Rust) has not returned"),
            Self::Downcalls { open } => write!(out, "downcalls (Rust → C) that have not returned: {open}"),
            Self::Stacks { in_use } => {
                write!(out, "stacks in use by upcalls that have not returned, or by fibers: {in_use}")
            }
            Self::Kept => out.write_str(
                "it has a runtime (upcall_local_end ends it), or waits, or uses a fiber-local value, or is a worker of upcall's",
            ),
            Self::Left { calls } => write!(out, "calls that C left by longjmp: {calls}"),
            Self::SignalHandler => out.write_str("this is a signal handler"),
            Self::Refused(refusal) => {
                write!(out, "its fiber-local values could not be dropped in an upcall: {refusal}")
            }
        }
    }
}

/// Ends now what [`attach`](crate::attach), or the thread's first upcall, began: frees the calling thread's record, with the stacks that it keeps in reserve, which its
/// exit would do. For threads of the host's that live on and call no more. Fiber-local values of code outside fibers are dropped.
///
/// A thread that is not attached stays so. A later upcall attaches it again.
///
/// ```
/// upcall::enter(|| assert_eq!(upcall::detach(), Err(upcall::InUse::Upcall)))?;
/// assert_eq!(upcall::detach(), Ok(()));
/// # Ok::<(), upcall::Panicked>(())
/// ```
///
/// # Errors
/// When something of the thread is in use. What cannot be seen: an upcall in place whose Rust code called C as a plain function, once another upcall
/// from there has returned. It goes on as one of a thread that is new. What can be seen too long: a call that C left by `longjmp`.
pub fn detach() -> Result<(), InUse> {
    let (sp, hot) = (stack_pointer(), Hot::here());
    let look = || match service::run(|| user_of(hot, hot.record()?, sp)) {
        None => Ok(()),
        Some(user) => Err(user),
    };
    look()?;
    if hot.record().is_some_and(|record| !record.locals.borrow().is_empty()) {
        // Their destructors are anybody's code, which wants room, and may begin something.
        if let Err(error) = enter(|| record::drop_thread_locals(hot)) {
            return Err(error.refusal().map_or(InUse::Upcall, |&refusal| InUse::Refused(refusal)));
        }
        look()?;
    }
    service::run(|| record::detach_before_exit(hot, sp));
    Ok(())
}

/// What needs the record of the calling thread, which is at `sp`.
fn user_of(hot: &Hot, record: &Record, sp: usize) -> Option<InUse> {
    if record::is_on_signal_stack(sp) {
        return Some(InUse::SignalHandler);
    }
    let (open, in_use) = (record.open_calls().count(), hot.stacks_in_use());
    // A call that comes back looks at its place, which is the record's.
    let calls = hot.calls.reclaimed();
    let users = [
        (open != 0, InUse::Downcalls { open }),
        (hot.is_in_upcall(), InUse::Upcall),
        (in_use != 0, InUse::Stacks { in_use }),
        (hot.is_kept(), InUse::Kept),
        (calls != 0, InUse::Left { calls }),
    ];
    users.into_iter().find_map(|(uses, user)| uses.then_some(user))
}
