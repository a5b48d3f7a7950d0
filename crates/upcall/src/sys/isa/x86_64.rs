#[path = "x86_words.rs"]
mod words;

use std::arch::asm;
use std::ffi::c_void;

pub(crate) use words::{add_at, is_beside_token, swap_if_at};

/// The address of the thread control block. By the ABI, it is also the block's first word.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads the word at the thread pointer, present in every thread of this platform.
    unsafe { asm!("mov {}, fs:0", out(reg) token, options(nostack, preserves_flags, readonly)) };
    token
}

/// SP of the code interrupted by a signal, and the address of the interrupted instruction.
///
/// # Safety
/// `context` is the third argument of a running signal handler.
pub(crate) unsafe fn interrupted_at(context: *const c_void) -> Option<(usize, usize)> {
    // SAFETY: as the caller guarantees, `context` is the valid `ucontext_t` of a signal handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let registers = &context.uc_mcontext.gregs;
    Some((registers[libc::REG_RSP as usize] as usize, registers[libc::REG_RIP as usize] as usize))
}
