//! A file descriptor that is readable while something can run: what a host's event loop watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::sys::EventFd;
use crate::quiet::report;
use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::SeqCst;

/// See the module. Between a signal and the next clearing, further signals cost no system call.
pub(super) struct Event {
    fd: EventFd,
    signalled: AtomicBool,
}

impl Event {
    pub fn new() -> io::Result<Event> {
        Ok(Event { fd: EventFd::new()?, signalled: AtomicBool::new(false) })
    }

    /// Makes it readable.
    #[inline]
    pub fn signal(&self) {
        if !self.signalled.load(SeqCst) && !self.signalled.swap(true, SeqCst) {
            self.fd.signal();
        }
    }

    /// Makes it unreadable. Who calls this looks afterwards whether something came meanwhile, and signals that.
    ///
    /// A thread may be late with its signal, between saying so and doing it. It wakes the host `in_vain` then, and that is when to clear
    /// what nobody says is signalled.
    pub fn clear(&self, in_vain: bool) {
        if in_vain || self.signalled.load(SeqCst) {
            self.fd.clear();
            self.signalled.store(false, SeqCst);
        }
    }

    /// In the child of a fork, which shares the descriptor with its parent: makes another one of it, by the same number.
    pub fn renew(&self) {
        if let Err(error) = self.fd.renew() {
            report(format_args!(
                "the descriptor of a LocalRuntime is shared by this process and the one that it was forked from ({error}): \
                 either may miss that something can run"
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
