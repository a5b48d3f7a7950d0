//! Detaching a thread before its exit.

use std::fmt;

use stackbounds::stack_pointer;

use super::{Refusal, enter};
use crate::stack::service;
use crate::thread::{Record, ThreadState, attach};

/// Why a thread was not detached: something of it is in use, or may be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InUse {
    /// An upcall has not returned, and has no open downcall.
    Upcall,
    /// Downcalls have not returned: those around this code, and those of suspended coroutines and
    /// fibers.
    Downcalls {
        /// The number of open downcalls.
        open: usize,
    },
    /// Pooled stacks are in use, by upcalls that have not returned, or by fibers that have not
    /// ended.
    Stacks {
        /// The number of stacks in use.
        in_use: usize,
    },
    /// Something else needs the thread's record.
    ///
    /// A [`LocalRuntime`](crate::LocalRuntime) has not ended, a [`wait`](crate::wait) or a use of a
    /// [`FiberLocal`](crate::FiberLocal) has not returned, or this is a worker of
    /// [`spawn`](crate::Fibers::spawn).
    Pinned,
    /// C seems to have abandoned calls by `longjmp`. If the host copies stacks, they could still
    /// return.
    Abandoned {
        /// The number of these calls.
        calls: usize,
    },
    /// This is a signal handler on an alternate stack.
    SignalHandler,
    /// The upcall to drop the values of [`FiberLocal`](crate::FiberLocal) variables was refused.
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
            Self::Pinned => out.write_str(
                "it has a runtime (local_end ends it), or waits, or uses a fiber-local value, or is a worker of upcall's",
            ),
            Self::Abandoned { calls } => write!(out, "calls that C left by longjmp: {calls}"),
            Self::SignalHandler => out.write_str("this is a signal handler"),
            Self::Refused(refusal) => {
                write!(out, "its fiber-local values could not be dropped in an upcall: {refusal}")
            }
        }
    }
}

/// Detaches the calling thread before its exit.
///
/// This undoes [`attach`](crate::attach), or the thread's first upcall: it frees the thread's
/// record and its idle stacks. Use it for host threads that live on and make no more calls. It
/// drops the fiber-local values of code outside fibers.
///
/// A thread that is not attached stays so. A later upcall attaches the thread again.
///
/// ```
/// upcall::enter(|| assert_eq!(upcall::detach(), Err(upcall::InUse::Upcall)))?;
/// assert_eq!(upcall::detach(), Ok(()));
/// # Ok::<(), upcall::UpcallError>(())
/// ```
///
/// # Errors
/// If something of the thread is in use.
///
/// **Not noticed:** an upcall in place whose Rust code called C as a plain function, once another
/// upcall from there has returned. It goes on as on a new thread.
///
/// **Noticed for too long:** a call abandoned by C's `longjmp`.
pub fn detach() -> Result<(), InUse> {
    let (sp, thread) = (stack_pointer(), ThreadState::current());
    let look = || match service::run(|| user_of(thread, thread.record()?, sp)) {
        None => Ok(()),
        Some(user) => Err(user),
    };
    look()?;
    if thread.record().is_some_and(|record| !record.locals.borrow().is_empty()) {
        // Their destructors may need much stack, and may begin something: they run in an upcall.
        if let Err(error) = enter(|| attach::drop_thread_locals(thread)) {
            return Err(error.refusal().map_or(InUse::Upcall, |&refusal| InUse::Refused(refusal)));
        }
        look()?;
    }
    service::run(|| attach::detach_before_exit(thread, sp));
    Ok(())
}

/// The user of the calling thread's record, if there is one. The thread is at `sp`.
fn user_of(thread: &ThreadState, record: &Record, sp: usize) -> Option<InUse> {
    if attach::is_on_signal_stack(sp) {
        return Some(InUse::SignalHandler);
    }
    let (open, in_use) = (record.open_calls().count(), thread.stacks_in_use());
    // An abandoned call that returns looks at its place, and the place belongs to the record.
    let calls = thread.calls.reclaimed();
    let users = [
        (open != 0, InUse::Downcalls { open }),
        (thread.is_in_upcall(), InUse::Upcall),
        (in_use != 0, InUse::Stacks { in_use }),
        (thread.is_record_pinned(sp), InUse::Pinned),
        (calls != 0, InUse::Abandoned { calls }),
    ];
    users.into_iter().find_map(|(uses, user)| uses.then_some(user))
}
