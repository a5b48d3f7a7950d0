//! The parts common to both sizes of x86: single instructions, which no signal interrupts.

use std::arch::asm;

/// Whether `address` is in static TLS.
///
/// Static thread-locals are just below the thread pointer, and a thread's stack is below them. So
/// within the size of the smallest stack, there is nothing else.
#[cfg_attr(windows, allow(dead_code, reason = "a module has its thread-locals anywhere there"))]
pub(crate) fn is_beside_token(address: usize) -> bool {
    const SMALLEST_STACK: usize = if cfg!(target_env = "musl") { 2 << 10 } else { 16 << 10 };
    super::thread_token().wrapping_sub(address) <= SMALLEST_STACK
}

/// Stores `to` if the word is `from`. Returns whether it was. Saves 18 cycles by doing without a
/// lock prefix.
///
/// # Safety
/// `base + OFFSET` is an `AtomicUsize` written by no other thread.
#[inline(always)]
pub(crate) unsafe fn swap_if_at<const OFFSET: usize>(base: *const u8, from: usize, to: usize) -> bool {
    let found: usize;
    // SAFETY: one instruction on the word at `base + OFFSET`. The caller guarantees a word there,
    // written by no other thread.
    unsafe {
        asm!(
            "cmpxchg [{base} + {offset}], {to}",
            base = in(reg) base,
            offset = const OFFSET,
            to = in(reg) to,
            inout("eax") from => found,
            options(nostack),
        );
    }
    found == from
}

/// Adds `number` to the word. Returns the value before.
///
/// # Safety
/// As for [`swap_if_at`].
#[inline(always)]
pub(crate) unsafe fn add_at<const OFFSET: usize>(base: *const u8, number: usize) -> usize {
    let before: usize;
    // SAFETY: one instruction on the word at `base + OFFSET`. The caller guarantees a word there,
    // written by no other thread.
    unsafe {
        asm!(
            "xadd [{base} + {offset}], {number}",
            base = in(reg) base,
            offset = const OFFSET,
            number = inout(reg) number => before,
            options(nostack),
        );
    }
    before
}
