use core::arch::asm;

/// The stack pointer of the calling function, as an address.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: copies one register to another. Reads and writes no memory, and leaves the flags
    // alone. SP changes in a function by pushed arguments only, so `pure` holds.
    unsafe { asm!("mov {}, esp", out(reg) sp, options(pure, nomem, nostack, preserves_flags)) };
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
    // 64 bits in all, so it changes nothing. The caller guarantees that the effect of the request
    // is sound.
    unsafe {
        asm!(
            "rol edi, 3",
            "rol edi, 13",
            "rol edi, 29",
            "rol edi, 19",
            "xchg ebx, ebx",
            inout("edx") answer,
            in("eax") request.as_ptr(),
            options(nostack)
        );
    }
    answer
}

/// An address in the calling function's code.
#[inline(always)]
pub fn code_pointer() -> usize {
    let address: usize;
    // SAFETY: the call pushes the address of the next instruction, which pops it. The flags stay.
    unsafe { asm!("call 2f", "2: pop {}", out(reg) address, options(preserves_flags)) };
    address
}
