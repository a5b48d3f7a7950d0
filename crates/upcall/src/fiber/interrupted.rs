//! Waits ended by the host. upcall asks it whether it wants its thread back.
//!
//! Rule: **when the host says so, every wait blocking the thread at that moment ends**, the
//! innermost first. Waits have increasing numbers, and all up to the newest are ended. So a wait
//! abandoned by `longjmp` needs no care, and one begun afterwards is not affected.
//!
//! upcall asks for [`wait`](super::wait()) and [`wait_interruptible`](super::wait_interruptible),
//! on the thread that they block: when a signal handler has run on it, and every [`EVERY`]. It does
//! not ask for
//! - waits that nothing may end (of a scope, of a fiber's drop),
//! - waits of a panicking thread, because it cannot be unwound again,
//! - waits inside the host's hook itself.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use stackbounds::stack_pointer;

use crate::config::settings;
use crate::crossing::{Interrupted, Killed, downcall};
use crate::sync::in_own_code;
use crate::thread::ThreadState;

/// The time between two questions. It matters for signals taken by another thread.
const EVERY: Duration = Duration::from_millis(50);

/// The effect of an interruption on a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// Nothing: the wait is not interrupted.
    Stays,
    /// The stack is unwound, with [`Interrupted`].
    Unwinds,
    /// The wait returns an error.
    Returns,
}

impl OnInterrupt {
    /// Whether the host may end the wait.
    pub fn may_end(self) -> bool {
        match self {
            Self::Stays => false,
            Self::Unwinds => !cfg!(panic = "abort"),
            Self::Returns => true,
        }
    }
}

/// The reason of a wait that has ended without a result.
#[derive(Clone, Copy)]
pub(crate) enum Stopped {
    /// The host wants its thread back.
    Interrupted,
    /// The host kills its coroutine.
    Killed,
}

impl Stopped {
    /// Unwinds from the wait. This is no panic: no hook is called.
    #[cold]
    #[inline(never)]
    pub fn unwind(self) -> ! {
        match self {
            Self::Interrupted => resume_unwind(Box::new(Interrupted)),
            Self::Killed => resume_unwind(Box::new(Killed)),
        }
    }
}

thread_local! {
    /// Waits with numbers up to this one have been interrupted.
    static UP_TO: Cell<usize> = const { Cell::new(0) };
    /// When to ask the host again.
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
    /// SP of the frame that asks the host; 0 if none does.
    static ASKS: Cell<usize> = const { Cell::new(0) };
}

/// Asks the host on behalf of one wait.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    hook: Option<fn() -> bool>,
    number: usize,
}

impl Asker {
    /// The asker of the wait with this number, which blocks the thread.
    pub fn new(on_interrupt: OnInterrupt, number: usize) -> Self {
        Self { hook: settings().interrupted.filter(|_| on_interrupt.may_end()), number }
    }

    /// When to ask next.
    pub fn next(&self) -> Option<Instant> {
        self.hook?;
        Some(NEXT.get().unwrap_or_else(postpone))
    }

    /// Whether to end the wait. `signalled`: whether a signal handler has run since the last call.
    #[inline]
    pub fn is_interrupted(&self, signalled: bool) -> bool {
        self.hook.is_some_and(|hook| self.ask(hook, signalled))
    }

    #[inline(never)]
    fn ask(&self, hook: fn() -> bool, signalled: bool) -> bool {
        if std::thread::panicking() || in_own_code() {
            return false;
        }
        if UP_TO.get() >= self.number {
            return true;
        }
        let sp = stack_pointer();
        let asks_already = ASKS.get() != 0 && !ThreadState::current().is_abandoned(ASKS.get(), sp);
        if asks_already || !signalled && NEXT.get().is_some_and(|next| Instant::now() < next) {
            return false;
        }
        let ends = {
            let _asking = Asking(ASKS.replace(sp));
            downcall(hook)
        };
        if ends {
            UP_TO.set(self.number);
        }
        ends
    }
}

/// Sets the next question to [`EVERY`] from now; returns that time.
fn postpone() -> Instant {
    let next = Instant::now() + EVERY;
    NEXT.set(Some(next));
    next
}

/// The host's hook runs. Keeps the previous `ASKS`, for its drop to restore.
struct Asking(usize);

impl Drop for Asking {
    fn drop(&mut self) {
        ASKS.set(self.0);
        postpone();
    }
}
