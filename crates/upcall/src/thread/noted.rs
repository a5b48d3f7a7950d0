//! What was found out of the stack that upcalls came from last.

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

/// A range of addresses of which something was found out that holds for one version of the registry of stackbounds.
pub(crate) struct Noted {
    low: Cell<usize>,
    size: Cell<usize>,
    version: Cell<usize>,
}

impl Noted {
    pub const fn nothing() -> Self {
        Self { low: Cell::new(0), size: Cell::new(0), version: Cell::new(0) }
    }

    #[inline(always)]
    pub fn holds(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.low.get()) < self.size.get() && self.version.get() == stackbounds::version()
    }

    /// A signal handler that interrupts this finds nothing noted.
    pub fn note(&self, low: usize, high: usize, version: usize) {
        self.size.set(0);
        compiler_fence(SeqCst);
        self.low.set(low);
        self.version.set(version);
        compiler_fence(SeqCst);
        self.size.set(high.saturating_sub(low));
    }
}
