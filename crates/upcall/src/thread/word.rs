//! Words of one thread that its signal handlers change too.
//!
//! Before the interrupted code continues, a handler may switch to another coroutine. This one may
//! make any number of calls and be suspended in the middle of one. So two accesses to one word are
//! two moments: an exact change is a single instruction.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::isa::{add_at, swap_if_at};

/// A word written only by its thread. Other threads may read it.
pub(crate) struct Word(AtomicUsize);

impl Word {
    pub const fn new(value: usize) -> Self {
        Self(AtomicUsize::new(value))
    }

    #[inline(always)]
    pub fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    #[inline(always)]
    pub fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }

    /// Stores `to` if the word is `from`, in one step. Returns whether it was.
    #[inline(always)]
    pub fn swap_if(&self, from: usize, to: usize) -> bool {
        // SAFETY: the address is that of this word, and only its thread writes it.
        unsafe { swap_if_at::<0>(std::ptr::from_ref(self).cast(), from, to) }
    }

    /// Adds to the word at `base + OFFSET`, in one step. Returns the value before. Takes one
    /// instruction less than [`add`](Self::add).
    ///
    /// # Safety
    /// A `Word` is at `base + OFFSET`, and the calling thread is its writer.
    #[inline(always)]
    pub unsafe fn add_in<const OFFSET: usize>(base: *const u8, number: usize) -> usize {
        // SAFETY: the caller guarantees a `Word` at `base + OFFSET` with no other thread writing
        // it.
        unsafe { add_at::<OFFSET>(base, number) }
    }

    /// Changes the word at `base + OFFSET` from `from` to `to`, in one step. Returns whether it was
    /// `from`.
    ///
    /// # Safety
    /// A `Word` is at `base + OFFSET`, and the calling thread is its writer.
    #[inline(always)]
    pub unsafe fn swap_if_in<const OFFSET: usize>(base: *const u8, from: usize, to: usize) -> bool {
        // SAFETY: the caller guarantees a `Word` at `base + OFFSET` with no other thread writing
        // it.
        unsafe { swap_if_at::<OFFSET>(base, from, to) }
    }

    /// Adds to the word, in one step. Returns the value before.
    #[inline(always)]
    pub fn add(&self, number: usize) -> usize {
        // SAFETY: the address is that of this word, and only its thread writes it.
        unsafe { add_at::<0>(std::ptr::from_ref(self).cast(), number) }
    }

    /// Subtracts from the word, in one step.
    pub fn subtract(&self, number: usize) {
        self.add(number.wrapping_neg());
    }
}
