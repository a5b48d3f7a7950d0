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

/// Makes a request to Valgrind: its number and arguments. Returns 0 without Valgrind.
///
/// # Safety
/// The effect of the request must be sound: some make Valgrind write memory, or call a function.
#[inline]
pub unsafe fn valgrind(request: [usize; 6]) -> usize {
    let mut answer = 0;
    // SAFETY: Valgrind recognises this sequence. On the processor alone, it rotates a register by
    // 128 bits in all, so it changes nothing. The caller guarantees that the effect of the request
    // is sound.
    unsafe {
        asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            inout("x3") answer,
            in("x4") request.as_ptr(),
            options(nostack, preserves_flags)
        );
    }
    answer
}

/// An address in the calling function's code.
#[inline(always)]
pub fn code_pointer() -> usize {
    let address: usize;
    // SAFETY: the instruction reads and writes no memory, and leaves the flags alone.
    unsafe { asm!("adr {}, .", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
