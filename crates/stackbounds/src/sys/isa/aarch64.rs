use core::arch::asm;

/// The stack pointer of the calling function, as an address.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: copies one register to another: reads and writes no memory, leaves the flags alone.
    unsafe { asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}
