//! A file descriptor for the host's event loop: readable while a fiber or a coroutine can run, or
//! when a task has changed.

use std::io;

use super::atomic::Ordering::{Relaxed, SeqCst};
use super::atomic::{AtomicBool, AtomicU32};
#[cfg(upcall_loom)]
use super::loom_event::OsEvent;
use crate::messages::warn;
use crate::sys::EventRef;
#[cfg(not(upcall_loom))]
use crate::sys::OsEvent;

/// The descriptor, and a flag for its state. Between a signal and the next `clear`, further signals
/// cost no system call; neither does a `clear` without a signal.
///
/// A thread may be late: it sets the flag, `clear` resets it, and only then the thread makes the
/// descriptor readable. This wakes the host in vain, once. `clear` knows of such threads by their
/// number: each signal is read once.
pub(crate) struct Event {
    fd: OsEvent,
    signalled: AtomicBool,
    /// The number of signals known to `clear` and not yet read. Only for its callers, who exclude
    /// each other.
    unread: AtomicU32,
}

impl Event {
    pub fn new() -> io::Result<Event> {
        Ok(Event { fd: OsEvent::new()?, signalled: AtomicBool::new(false), unread: AtomicU32::new(0) })
    }

    /// Makes the descriptor readable.
    #[inline]
    pub fn signal(&self) {
        if !self.signalled.load(SeqCst) && !self.signalled.swap(true, SeqCst) {
            self.fd.signal();
        }
    }

    /// Makes the descriptor unreadable. Afterwards, the caller looks for fibers that became ready
    /// meanwhile, and signals if there are any.
    pub fn clear(&self) {
        let signalled = self.signalled.load(SeqCst);
        let unread = self.unread.load(Relaxed) + u32::from(signalled);
        if unread == 0 {
            return;
        }
        let read = self.fd.clear();
        if read > unread {
            // One of them came after the look at the flag, which stays set.
            self.fd.signal();
        }
        self.unread.store(unread.saturating_sub(read), Relaxed);
        if signalled {
            // An exchange for loom, which lets a store precede an exchange that was before it.
            self.signalled.swap(false, SeqCst);
        }
    }

    /// In the child of a fork: replaces the descriptor, shared with the parent, by a new one under
    /// the same number.
    pub fn renew(&self) {
        if let Err(error) = self.fd.renew() {
            warn(format_args!(
                "a descriptor for an event loop is shared by this process and the one that it was forked from ({error}): \
                 either may miss an event"
            ));
        } else {
            self.unread.store(0, Relaxed);
            if self.signalled.load(SeqCst) {
                self.fd.signal();
            }
        }
    }

    #[cfg(all(test, upcall_loom))]
    pub fn is_readable(&self) -> bool {
        self.fd.is_readable()
    }

    pub fn event(&self) -> EventRef<'_> {
        self.fd.event()
    }
}
