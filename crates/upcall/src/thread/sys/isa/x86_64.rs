use std::arch::asm;

/// The address of the thread control block, which the ABI has the block itself begin with.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads the word at the thread pointer, which every thread of the platform has.
    unsafe { asm!("mov {}, fs:0", out(reg) token, options(nostack, preserves_flags, readonly)) };
    token
}

/// Static thread-locals lie below what the thread pointer points to. There is nothing else within the size of the smallest stack, which is below them.
pub(crate) fn is_beside_token(address: usize) -> bool {
    const SMALLEST_STACK: usize = 16 << 10;
    thread_token().wrapping_sub(address) <= SMALLEST_STACK
}
