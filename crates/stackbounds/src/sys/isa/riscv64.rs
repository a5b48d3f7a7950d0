use core::arch::asm;

/// The stack pointer of the calling function, as an address.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: copies one register to another. Reads and writes no memory, and leaves the flags
    // alone.
    unsafe { asm!("mv {}, sp", out(reg) sp, options(pure, nomem, nostack, preserves_flags)) };
    sp
}

/// Makes a request to Valgrind: its number and arguments. Returns 0 without Valgrind.
///
/// # Safety
/// The effect of the request must be sound: some make Valgrind write memory, or call a function.
#[inline]
pub unsafe fn valgrind(request: [usize; 6]) -> usize {
    let mut answer = 0;
    // SAFETY: Valgrind recognises this sequence. On the processor alone, it writes the zero
    // register and copies a register to itself, so it changes nothing. The caller guarantees that
    // the effect of the request is sound.
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            "srli zero, zero, 3",
            "srli zero, zero, 13",
            "srli zero, zero, 51",
            "srli zero, zero, 61",
            "or a0, a0, a0",
            ".option pop",
            inout("a3") answer,
            in("a4") request.as_ptr(),
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
    unsafe { asm!("auipc {}, 0", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
