use std::arch::asm;
use std::ffi::c_void;

/// The address of the thread control block. By the ABI, it is also the block's first word.
#[inline(always)]
pub(crate) fn thread_token() -> usize {
    let token;
    // SAFETY: reads the word at the thread pointer, present in every thread of this platform.
    unsafe { asm!("mov {}, fs:0", out(reg) token, options(nostack, preserves_flags, readonly)) };
    token
}

/// Whether `address` is in static TLS.
///
/// Static thread-locals are just below the thread pointer, and a thread's stack is below them. So
/// within the size of the smallest stack, there is nothing else.
pub(crate) fn is_beside_token(address: usize) -> bool {
    const SMALLEST_STACK: usize = if cfg!(target_env = "musl") { 2 << 10 } else { 16 << 10 };
    thread_token().wrapping_sub(address) <= SMALLEST_STACK
}

/// Stores `to` if the word is `from`. Returns whether it was. Saves 18 cycles by doing without a
/// lock prefix.
///
/// # Safety
/// `base + OFFSET` is an `AtomicUsize` written by no other thread.
#[inline(always)]
pub(crate) unsafe fn swap_if_at<const OFFSET: usize>(base: *const u8, from: usize, to: usize) -> bool {
    let found: usize;
    // SAFETY: one instruction on the word at `base + OFFSET`. The caller guarantees a word there,
    // written by no other thread.
    unsafe {
        asm!(
            "cmpxchg qword ptr [{base} + {offset}], {to}",
            base = in(reg) base,
            offset = const OFFSET,
            to = in(reg) to,
            inout("rax") from => found,
            options(nostack),
        );
    }
    found == from
}

/// Adds `number` to the word. Returns the value before.
///
/// # Safety
/// As for [`swap_if_at`].
#[inline(always)]
pub(crate) unsafe fn add_at<const OFFSET: usize>(base: *const u8, number: usize) -> usize {
    let before: usize;
    // SAFETY: one instruction on the word at `base + OFFSET`. The caller guarantees a word there,
    // written by no other thread.
    unsafe {
        asm!(
            "xadd qword ptr [{base} + {offset}], {number}",
            base = in(reg) base,
            offset = const OFFSET,
            number = inout(reg) number => before,
            options(nostack),
        );
    }
    before
}

/// SP of the code interrupted by a signal, and the address of the interrupted instruction.
///
/// # Safety
/// `context` is the third argument of a running signal handler.
pub(crate) unsafe fn interrupted_at(context: *const c_void) -> Option<(usize, usize)> {
    // SAFETY: as the caller guarantees, `context` is the valid `ucontext_t` of a signal handler.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let registers = &context.uc_mcontext.gregs;
    Some((registers[libc::REG_RSP as usize] as usize, registers[libc::REG_RIP as usize] as usize))
}
