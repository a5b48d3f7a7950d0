//! Refusals: reasons not to run an upcall.

use std::fmt;

pub(super) const SIGNAL_HANDLER: &str = "the upcall came from a signal handler, on a thread that has nothing in reserve for that, and nothing can be allocated \
     there: call upcall::attach, or thread_attach in C, on the thread before, or declare the function to run on the caller's stack";

/// Why an upcall was refused. Nothing of it has run; its closure was dropped in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The upcall must run on the caller's stack
    /// ([`StackChoice::Caller`](crate::StackChoice::Caller)), and this has provably too little
    /// room.
    NoRoom {
        /// Bytes that the entry needs.
        needed: usize,
        /// Bytes that remain on the caller's stack.
        remaining: usize,
    },
    /// The upcall came from an undescribed stack, and
    /// [`ForeignStacks::Refuse`](crate::ForeignStacks::Refuse) is set.
    ForeignStack {
        /// The caller's stack pointer.
        sp: usize,
    },
    /// The upcall came from C code on the stack of a fiber dropped during a wait. C should return.
    FiberDropped,
    /// The [allowed number](crate::Config::open_upcalls) of the thread's upcalls from undescribed
    /// stacks is open.
    TooManyOpen {
        /// The allowed number.
        limit: usize,
    },
    /// The upcall came from a signal handler on an alternate stack, and would have to allocate.
    ///
    /// The thread had made no upcall before, or has no stack and no room for downcalls in
    /// [reserve](crate::attach).
    SignalHandler,
    /// An upcall before this one panicked below the same [`downcall`](crate::downcall), and the
    /// entry [refuses](crate::Entry::refuse_after_panic) then. C should return.
    ///
    /// The thread's last message stays that of the panic.
    AfterPanic,
    /// There is no memory for a stack.
    OutOfMemory {
        /// Size of the stack asked for, in bytes.
        bytes: usize,
    },
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { needed, remaining } => write!(
                out,
                "the upcall must run on the caller's stack, which has {remaining} bytes left of the {needed} that it needs: \
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
                 open_upcalls; if it leaves upcalls by longjmp, register its stacks (stackbounds::register, stack_register in C), where those \
                 that were left can be told from those that are suspended"
            ),
            Self::SignalHandler => out.write_str(SIGNAL_HANDLER),
            Self::AfterPanic => out.write_str(
                "an upcall before this one, below the same downcall, has panicked: no upcall of a function that refuses then is served until \
                 C has returned",
            ),
            Self::OutOfMemory { bytes } => write!(
                out,
                "there is no memory for a stack of {bytes} bytes: lower min_stack or fiber_stack, or raise the limit on the \
                 process's address space or mappings"
            ),
        }
    }
}
