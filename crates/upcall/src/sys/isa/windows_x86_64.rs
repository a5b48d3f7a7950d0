#[path = "x86_words.rs"]
mod words;

use std::arch::asm;

pub(crate) use words::{add_at, swap_if_at};

/// The address of the thread environment block. It is also one of the block's words.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads a word of the thread environment block, present in every thread.
    unsafe { asm!("mov {}, gs:[0x30]", out(reg) token, options(nostack, preserves_flags, readonly)) };
    token
}

/// Always false: each module has its thread-locals in a block of its own, anywhere.
pub(crate) fn is_beside_token(_address: usize) -> bool {
    false
}
