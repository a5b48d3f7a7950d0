//! The parts without assembly: words changed by the language's atomic operations.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Stores `to` if the word is `from`. Returns whether it was.
///
/// # Safety
/// `base + OFFSET` is an `AtomicUsize` written by no other thread.
#[inline(always)]
pub(crate) unsafe fn swap_if_at<const OFFSET: usize>(base: *const u8, from: usize, to: usize) -> bool {
    // SAFETY: the caller guarantees an `AtomicUsize` at `base + OFFSET`.
    let word = unsafe { &*base.add(OFFSET).cast::<AtomicUsize>() };
    word.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
}

/// Adds `number` to the word. Returns the value before.
///
/// # Safety
/// As for [`swap_if_at`].
#[inline(always)]
pub(crate) unsafe fn add_at<const OFFSET: usize>(base: *const u8, number: usize) -> usize {
    // SAFETY: the caller guarantees an `AtomicUsize` at `base + OFFSET`.
    unsafe { &*base.add(OFFSET).cast::<AtomicUsize>() }.fetch_add(number, Relaxed)
}

/// Always false: the distance is not known here.
pub(crate) fn is_beside_token(_address: usize) -> bool {
    false
}
