//! A file descriptor for the host's event loop: readable while a fiber or a coroutine can run, or
//! when a task has changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::atomic::AtomicBool;
use super::atomic::Ordering::SeqCst;
#[cfg(upcall_loom)]
use super::loom_event::EventFd;
use crate::messages::warn;
#[cfg(not(upcall_loom))]
use crate::sys::EventFd;

/// The descriptor, and a flag for its state. Between a signal and the next `clear`, further signals
/// cost no system call.
pub(crate) struct Event {
    fd: EventFd,
    signalled: AtomicBool,
}

impl Event {
    pub fn new() -> io::Result<Event> {
        Ok(Event { fd: EventFd::new()?, signalled: AtomicBool::new(false) })
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
    ///
    /// A thread may be late, and make the descriptor readable after this has reset its flag. Such a
    /// signal wakes the host `in_vain`. The descriptor is then cleared whatever the flag says.
    pub fn clear(&self, in_vain: bool) {
        if in_vain || self.signalled.load(SeqCst) {
            self.fd.clear();
            self.signalled.store(false, SeqCst);
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
        } else if self.signalled.load(SeqCst) {
            self.fd.signal();
        }
    }

    #[cfg(all(test, upcall_loom))]
    pub fn is_readable(&self) -> bool {
        self.fd.is_readable()
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
