//! Waits that block their thread: the steps around each sleep, and the report of a long wait.

use std::cell::Cell;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::initialiser::Inside;
use super::interrupted::Asker;
use crate::config::{AroundBlock, Config, settings};
use crate::crossing::downcall;
use crate::function::Function;
use crate::messages::warn;
use crate::process::fork;
use crate::sync::in_own_code;
use crate::thread::{Parked, Parker};

/// A wait that blocks its thread.
pub(super) struct Blocked<'a> {
    pub at: &'static Location<'static>,
    pub future: Function,
    pub asker: &'a Asker,
    pub kind: WaitKind,
    /// When to report the wait as long: `None` before its first sleep, `Some(None)` for never.
    warn_at: Cell<Option<Option<Instant>>>,
}

/// What a wait keeps from running.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitKind {
    /// Nothing but its own frames, as far as is known.
    Ordinary,
    /// This thread's fibers: the wait is inside an initialiser.
    Initialises,
    /// This thread's fibers and the interrupted code: the wait is inside a signal handler.
    InHandler,
    /// A current-thread runtime of tokio: this is its only thread.
    #[cfg(feature = "tokio")]
    OnlyThread,
}

impl WaitKind {
    /// The time after which such a wait is reported; zero for never.
    fn warning(self, settings: &Config) -> Duration {
        settings.wait_warning.unwrap_or(match self {
            Self::Ordinary => Duration::from_secs(60),
            _ => Duration::from_secs(5),
        })
    }
}

impl<'a> Blocked<'a> {
    pub fn new(
        at: &'static Location<'static>,
        future: Function,
        asker: &'a Asker,
        inside: Option<Inside>,
    ) -> Self {
        let kind = match inside {
            None => WaitKind::Ordinary,
            Some(Inside::Initialiser) => WaitKind::Initialises,
            Some(Inside::SignalHandler) => WaitKind::InHandler,
        };
        Self { at, future, asker, kind, warn_at: Cell::new(None) }
    }

    /// Sleeps. Panics in a process copied without notice (`_Fork`, `clone`): nobody could wake the
    /// thread there.
    pub fn park(&self, parker: &Parker) -> Parked {
        if parker.look() {
            return Parked::Woken;
        }
        if fork::is_untold() {
            fork::panic_untold();
        }
        let warn_at = self.warn_at.get().unwrap_or_else(|| self.set_warning());
        let deadline = match (warn_at, self.asker.next()) {
            (Some(warn), Some(ask)) => Some(warn.min(ask)),
            (warn, ask) => warn.or(ask),
        };
        let parked = around_block(|| parker.sleep(deadline));
        if parked == Parked::TimedOut && warn_at.is_some_and(|at| at <= Instant::now()) {
            self.warn_at.set(Some(None));
            self.warn();
        }
        parked
    }

    fn set_warning(&self) -> Option<Instant> {
        let after = self.kind.warning(settings());
        let at = Instant::now().checked_add(after).filter(|_| !after.is_zero());
        self.warn_at.set(Some(at));
        at
    }

    /// Reports that the wait takes long. Ordinary waits are reported once for each place.
    #[cold]
    fn warn(&self) {
        let (at, future) = (self.at, self.future);
        let after = self.kind.warning(settings());
        match self.kind {
            WaitKind::Ordinary if is_first(at) => warn(format_args!(
                "the wait at {at} has blocked its thread for {after:?}: it waits for {future}. If that may take long, say so: \
                 upcall::config().wait_warning(Duration::ZERO), or UPCALL_WAIT_WARNING=0. Waits at this place are not reported again"
            )),
            WaitKind::Ordinary => {}
            WaitKind::Initialises => warn(format_args!(
                "the wait at {at} has blocked its thread for {after:?} inside the initialiser of a LazyLock, OnceLock or Once. No fiber of this thread runs \
                 meanwhile: if the wait, for {future}, is for one of them, it waits for ever. Initialise without waiting, or before the fibers begin"
            )),
            WaitKind::InHandler => warn(format_args!(
                "the wait at {at} has blocked its thread for {after:?} inside a signal handler. No fiber of this thread runs meanwhile, nor does the \
                 code that the signal has interrupted: if the wait, for {future}, is for either, it waits for ever. Have the handler wake somebody who waits"
            )),
            #[cfg(feature = "tokio")]
            WaitKind::OnlyThread => warn(format_args!(
                "the wait at {at} has blocked the thread of a current-thread tokio runtime for {after:?}: if what it waits for, {future}, needs that \
                 runtime (its timers, its sockets, another of its tasks), it waits for ever. Make the call into C in a fiber \
                 (Fibers::fiber(..).await, with downcall_on_fiber), use a multi-thread runtime, or make inside the wait what it waits for \
                 (upcall::wait(async {{ .. }})), where upcall's runtime serves it, or that of upcall::tokio_runtime"
            )),
        }
    }
}

/// Whether `at` has not been reported yet. Once the table of places is full, the answer for a new
/// place is no.
pub(crate) fn is_first(at: &'static Location<'static>) -> bool {
    static SAID: [AtomicPtr<Location<'static>>; 64] = [const { AtomicPtr::new(ptr::null_mut()) }; 64];
    let new = ptr::from_ref(at).cast_mut();
    for place in &SAID {
        match place.compare_exchange(ptr::null_mut(), new, Relaxed, Relaxed) {
            Ok(_) => return true,
            // SAFETY: not null, so it was stored here, from a reference to a static.
            Err(known) if unsafe { *known == *at } => return false,
            Err(_) => {}
        }
    }
    false
}

/// Calls `sleep` between the two hooks of the host. `sleep` only blocks the thread and runs no
/// other code, so pairs of these calls nest properly.
pub(crate) fn around_block<T>(sleep: impl FnOnce() -> T) -> T {
    let Some(AroundBlock { before, after }) = settings().around_block.filter(|_| !in_own_code()) else {
        return sleep();
    };
    let token = downcall(before);
    let slept = sleep();
    downcall(|| after(token));
    slept
}
