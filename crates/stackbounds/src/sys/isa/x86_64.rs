use core::arch::asm;

/// The stack pointer of the calling function, as an address.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: copies one register to another: reads and writes no memory, leaves the flags alone. It is the same throughout a function.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(pure, nomem, nostack, preserves_flags)) };
    sp
}

/// Makes a request to Valgrind: its number and arguments.
#[inline]
pub fn valgrind(request: [usize; 6]) -> usize {
    let mut answer = 0;
    // SAFETY: the sequence that Valgrind looks for; to the processor it rotates a register by 128 bits in all.
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
    // SAFETY: reads and writes no memory, leaves the flags alone.
    unsafe { asm!("lea {}, [rip]", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
