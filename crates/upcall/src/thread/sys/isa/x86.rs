#[path = "words.rs"]
mod words;

use std::arch::asm;

pub(crate) use words::{add_at, is_beside_token, swap_if_at};

/// The address of the thread control block. By the ABI, it is also the block's first word.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads the word at the thread pointer, present in every thread of this platform.
    unsafe { asm!("mov {}, gs:0", out(reg) token, options(nostack, preserves_flags, readonly)) };
    token
}
