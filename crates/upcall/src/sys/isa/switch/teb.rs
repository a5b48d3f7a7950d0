//! The bounds of the stack in use, kept by Windows in the thread environment block (TEB).

use std::arch::asm;
use std::cell::Cell;
use std::ptr;

use crate::sys::{BELOW_STACK, lowest_committed};

/// Words of the TEB while the thread is on another stack.
#[repr(C)]
#[derive(Clone)]
pub struct OsBounds {
    /// `ExceptionList`, at offset 0: empty for an idle stack. Used by wine.
    exceptions: Cell<usize>,
    /// `StackBase`, at offset 8.
    base: Cell<usize>,
    /// `StackLimit`, at offset 0x10: the lowest committed address. The system moves it.
    limit: Cell<usize>,
    /// `DeallocationStack`, at offset 0x1478: the stack never grows below.
    low: Cell<usize>,
}

/// The end of a list of exception handlers.
const NO_HANDLER: usize = usize::MAX;

impl OsBounds {
    /// Bounds for the stack in use: a switch away from it stores them.
    pub const fn new() -> Self {
        Self::of_memory(0, 0)
    }

    /// The bounds of an idle stack made by `commit_stack`. It may have grown.
    pub fn of_stack(low: usize, base: usize) -> Self {
        let bounds = Self::of_memory(low - BELOW_STACK, base);
        bounds.limit.set(lowest_committed(low, base));
        bounds
    }

    /// The bounds of memory used as a stack, all of it committed.
    pub const fn of_memory(low: usize, base: usize) -> Self {
        Self {
            exceptions: Cell::new(NO_HANDLER),
            base: Cell::new(base),
            limit: Cell::new(low),
            low: Cell::new(low),
        }
    }

    /// Whether the system has bounds with `sp`, the SP in use.
    #[inline(always)]
    pub fn are_told_at(sp: usize) -> bool {
        let (base, low): (usize, usize);
        // SAFETY: reads words of the TEB, present in every thread.
        unsafe {
            asm!(
                "mov {}, gs:[8]",
                "mov {}, gs:[0x1478]",
                out(reg) base,
                out(reg) low,
                options(nostack, preserves_flags, readonly)
            );
        }
        sp.wrapping_sub(low) < base.wrapping_sub(low)
    }

    /// Tells the system these bounds, except for the handlers, which stay.
    ///
    /// # Safety
    /// They are those of the stack in use.
    pub unsafe fn tell(&self) {
        // SAFETY: the caller guarantees the bounds.
        unsafe {
            asm!(
                "mov gs:[8], {}",
                "mov gs:[0x10], {}",
                "mov gs:[0x1478], {}",
                in(reg) self.base.get(),
                in(reg) self.limit.get(),
                in(reg) self.low.get(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// Stores the limit of this stack, the one in use.
    pub fn note_in_use(&self) {
        let limit;
        // SAFETY: reads a word of the TEB, present in every thread.
        unsafe { asm!("mov {}, gs:[0x10]", out(reg) limit, options(nostack, preserves_flags, readonly)) };
        self.limit.set(limit);
    }
}

/// Leads to the bounds of a stack, in a frame that waits there.
pub struct OsBoundsRef(Cell<*const OsBounds>);

impl OsBoundsRef {
    pub const fn none() -> Self {
        Self(Cell::new(ptr::null()))
    }

    pub fn set(&self, bounds: &OsBounds) {
        self.0.set(bounds);
    }

    pub fn follow(&self, other: &Self) {
        self.0.set(other.0.get());
    }

    /// # Safety
    /// The bounds were set, and the frame with them still waits.
    pub unsafe fn get(&self) -> &OsBounds {
        // SAFETY: the caller guarantees that the bounds are alive.
        unsafe { &*self.0.get() }
    }
}
