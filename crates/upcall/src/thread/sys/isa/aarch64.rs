#[path = "words.rs"]
mod words;

use std::arch::asm;

pub(crate) use words::{add_at, is_beside_token, swap_if_at};

/// The thread pointer.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: only reads a register. Every thread of this platform has its own value there.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) token, options(nostack, nomem, preserves_flags)) };
    token
}
