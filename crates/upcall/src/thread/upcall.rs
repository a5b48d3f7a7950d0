//! Which upcall some code belongs to: for snapshots and reports, and for what `longjmp` left.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::function::Function;
use crate::shown::ShownFunction;

/// One upcall, or none.
#[derive(Clone, Copy)]
pub(crate) struct Upcall {
    /// SP at its entry; 0 if it is none.
    pub sp: usize,
    /// What C called. It may be there when there is no upcall.
    pub function: Option<Function>,
}

/// A place for one.
pub(crate) struct UpcallCell {
    sp: AtomicUsize,
    pub function: ShownFunction,
}

impl UpcallCell {
    pub const fn new() -> Self {
        Self { sp: AtomicUsize::new(0), function: ShownFunction::none() }
    }

    #[inline(always)]
    pub fn sp(&self) -> usize {
        self.sp.load(Relaxed)
    }

    #[inline(always)]
    pub fn set_sp(&self, sp: usize) {
        self.sp.store(sp, Relaxed);
    }

    #[inline(always)]
    pub fn get(&self) -> Upcall {
        Upcall { sp: self.sp(), function: self.function.get() }
    }

    #[inline(always)]
    pub fn set(&self, upcall: Upcall) {
        self.set_sp(upcall.sp);
        self.function.set(upcall.function);
    }
}
