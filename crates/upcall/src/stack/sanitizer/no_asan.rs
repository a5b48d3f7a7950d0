//! Without AddressSanitizer: nothing, at no cost.

use super::super::{StackHeader, switch};
use crate::sys::isa::switch::OsBounds;

pub fn is_root(_low: *const u8, _size: usize) {}

pub fn is_free(_low: usize, _high: usize) {}

pub fn is_out_of_bounds(_word: usize) -> bool {
    false
}

pub struct SavedStack;

impl SavedStack {
    pub const fn new() -> Self {
        Self
    }
}

pub struct Told;

impl Told {
    /// # Safety
    /// No requirements.
    pub unsafe fn of_idle(_last: impl FnOnce() -> *const StackHeader) -> Self {
        Self
    }

    pub fn follow(&self, _other: &Told) {}
}

/// Runs `f` on a pooled stack.
///
/// # Safety
/// Nothing uses the stack.
#[inline(always)]
pub unsafe fn on_pooled(
    header: &StackHeader,
    here: &OsBounds,
    _beneath: bool,
    before: impl FnOnce(),
    f: impl FnOnce(),
) {
    // SAFETY: the caller guarantees an unused stack. A header's address is aligned.
    unsafe { switch::on_stack(here, &header.os_bounds, header.base(), before, f) };
}

/// Runs `f` on the system stack.
///
/// # Safety
/// As for `switch::on_system`.
#[inline(always)]
pub unsafe fn on_system(here: &OsBounds, there: &OsBounds, system_sp: usize, f: impl FnOnce()) {
    // SAFETY: the caller guarantees an unused system stack below `system_sp`.
    unsafe { switch::on_stack(here, there, system_sp, || {}, f) };
}

/// Runs `f` on a block of memory.
///
/// # Safety
/// As for `switch::on_block`.
#[inline(always)]
pub unsafe fn on_block(_saved: &SavedStack, low: usize, base: usize, f: impl FnOnce()) {
    // SAFETY: the caller guarantees an unused block, large enough for `f`.
    unsafe { switch::on_stack(&OsBounds::new(), &OsBounds::of_memory(low, base), base, || {}, f) };
}

#[inline(always)]
pub fn resumed<R>(_stack: &StackHeader, resume: impl FnOnce() -> R) -> R {
    resume()
}

#[inline(always)]
pub fn coroutine_made(_stack: &StackHeader) {}

#[inline(always)]
pub fn coroutine_begins(_stack: &StackHeader) {}

#[inline(always)]
pub fn coroutine_ends(_stack: &StackHeader) {}

#[inline(always)]
pub fn suspended<R>(_stack: &StackHeader, suspend: impl FnOnce() -> R) -> R {
    suspend()
}
