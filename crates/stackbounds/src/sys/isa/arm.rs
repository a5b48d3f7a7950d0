use core::arch::asm;

/// The stack pointer of the calling function, as an address.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: copies one register to another. Reads and writes no memory, and leaves the flags
    // alone.
    unsafe { asm!("mov {}, sp", out(reg) sp, options(pure, nomem, nostack, preserves_flags)) };
    sp
}

/// Ignores the request: upcall is not tested on Valgrind here. Returns 0.
///
/// # Safety
/// The effect of the request must be sound: some make Valgrind write memory, or call a function.
#[inline]
pub unsafe fn valgrind(_request: [usize; 6]) -> usize {
    0
}

/// An address in the calling function's code.
#[inline(always)]
pub fn code_pointer() -> usize {
    let address: usize;
    // SAFETY: the instructions read and write no memory. Read so, `pc` is the address of the first
    // one and 4 bytes more in Thumb code, 8 in other code.
    unsafe { asm!("mov {0}, pc", "sub {0}, {0}, #4", out(reg) address, options(nomem, nostack)) };
    address
}
