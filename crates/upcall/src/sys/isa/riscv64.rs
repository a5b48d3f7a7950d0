#[path = "words.rs"]
mod words;

use std::arch::asm;
use std::ffi::c_void;

pub(crate) use words::{add_at, is_beside_token, swap_if_at};

/// The thread pointer.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: only reads a register. Every thread of this platform has its own value there.
    unsafe { asm!("mv {}, tp", out(reg) token, options(nostack, nomem, preserves_flags)) };
    token
}

/// SP of the code interrupted by a signal, and the address of the interrupted instruction.
///
/// # Safety
/// `context` is the third argument of a running signal handler.
pub(crate) unsafe fn interrupted_at(context: *const c_void) -> Option<(usize, usize)> {
    // SAFETY: as the caller guarantees, `context` is the valid `ucontext_t` of a signal handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let registers = &context.uc_mcontext.__gregs;
    Some((registers[libc::REG_SP] as usize, registers[libc::REG_PC] as usize))
}
