use core::arch::asm;

/// The stack pointer of the calling function, as an address.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: copies one register to another. Reads and writes no memory, and leaves the flags
    // alone. SP is the same throughout a function, so `pure` holds.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(pure, nomem, nostack, preserves_flags)) };
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
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            inout("rdx") answer,
            in("rax") request.as_ptr(),
            options(nostack)
        );
    }
    answer
}

/// An address in the calling function's code.
#[inline(always)]
pub fn code_pointer() -> usize {
    let address: usize;
    // SAFETY: the instruction reads and writes no memory, and leaves the flags alone.
    unsafe { asm!("lea {}, [rip]", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
