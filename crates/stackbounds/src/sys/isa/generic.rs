use core::hint::black_box;

/// The stack pointer of the calling function, approximated by the address of a local word.
///
/// Never inlined, so the local lies in a frame of its own, slightly below the caller's.
#[inline(never)]
pub fn stack_pointer() -> usize {
    let local = 0usize;
    black_box(&raw const local) as usize
}

/// Ignores the request: without assembly, Valgrind is not asked. Returns 0.
///
/// # Safety
/// The effect of the request must be sound: some make Valgrind write memory, or call a function.
#[inline]
pub unsafe fn valgrind(_request: [usize; 6]) -> usize {
    0
}

/// Always 0: the program counter is unknown here.
#[inline(always)]
pub fn code_pointer() -> usize {
    0
}
