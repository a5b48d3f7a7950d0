//! Switches for x86-64 on Windows.
//!
//! A suspended coroutine has a *record* on its stack. So has the resumer of a running coroutine:
//!
//! ```text
//!              ├────────────────┤ SP of the inline assembly
//! record + 16  │ return address │ in the code that resumed or suspended
//! record + 8   │ its RBP        │
//! record       │ its RBX        │ what the link points to; RSP before the switch, and after
//!              ├────────────────┤
//! ```
//!
//! Windows describes a function by its prologue: the registers pushed, the frame register. Both
//! records look like the end of one prologue, so one description suits both sides of a switch.
//! `call` finds its caller's stack by its frame register. The code at `root` stays as the outermost
//! frame of a coroutine, with RBP = address of the link. Its description takes RSP from there, so
//! unwinders go on at the record of the last resumer. (corosensei found this use of a saved RSP.)
//!
//! Walks are right from every call, and in most instructions of a switch. No exception passes
//! through a switch.
//!
//! As elsewhere on x86-64, a resumption is a call, and the `ret` of the next suspension leads to
//! its caller, as processors predict. There is no red zone: nothing is kept below RSP. The inline
//! assembly declares the clobbers of the System V convention. Beyond RBX and RBP, these include all
//! that Windows' convention preserves.

#[path = "x86_64_resume.rs"]
mod resume;

use std::arch::{asm, global_asm};
use std::ptr;

use super::{Begin, OsBounds};

/// Whether unwinders take the frames of switches for signal frames.
pub const MARKED_AS_HANDLERS: bool = false;

/// Opens a function. A program has one definition of it, even if several libraries contain one.
macro_rules! function {
    ($part:literal) => {
        concat!(
            ".section .text$",
            symbol!($part),
            ",\"xr\",discard,",
            symbol!($part),
            "\n.globl ",
            symbol!($part),
            "\n.p2align 4\n",
            symbol!($part),
            ":\n.seh_proc ",
            symbol!($part)
        )
    };
}

/// Stores the bounds of the stack in use at `$place`, an [`OsBounds`]. Changes R10.
macro_rules! store_bounds {
    ($place:literal) => {
        concat!(
            "mov r10, gs:[0]\nmov [",
            $place,
            "], r10\nmov r10, gs:[8]\nmov [",
            $place,
            " + 8], r10\nmov r10, gs:[0x10]\nmov [",
            $place,
            " + 16], r10\nmov r10, gs:[0x1478]\nmov [",
            $place,
            " + 24], r10"
        )
    };
}

/// Tells the system the bounds of the stack in use, from `$place`. Changes R10.
macro_rules! tell_bounds {
    ($place:literal) => {
        concat!(
            "mov r10, [",
            $place,
            "]\nmov gs:[0], r10\nmov r10, [",
            $place,
            " + 8]\nmov gs:[8], r10\nmov r10, [",
            $place,
            " + 16]\nmov gs:[0x10], r10\nmov r10, [",
            $place,
            " + 24]\nmov gs:[0x1478], r10"
        )
    };
}

global_asm!(
    // RCX: argument; RDX: base; R8: function; R9: the addresses of the bounds here, and there.
    function!("call"),
    "push rbp",
    ".seh_pushreg rbp",
    "push rbx",
    ".seh_pushreg rbx",
    "mov rbp, rsp",
    ".seh_setframe rbp, 0",
    ".seh_endprologue",
    "mov rbx, r9",
    "mov rax, [rbx]",
    store_bounds!("rax"),
    "mov rax, [rbx + 8]",
    "mov rsp, rdx",
    tell_bounds!("rax"),
    // The callee may use 32 bytes above its return address.
    "sub rsp, 32",
    "call r8",
    "mov rax, [rbx + 8]",
    store_bounds!("rax"),
    "mov rax, [rbx]",
    "mov rsp, rbp",
    tell_bounds!("rax"),
    "lea rsp, [rbp]",
    "pop rbx",
    "pop rbp",
    "ret",
    ".seh_endproc",
    //
    // The root of a coroutine, entered at its second instruction.
    // RDI: argument; RSI: link; RBP: link.
    function!("root"),
    ".seh_pushreg rbp",
    ".seh_pushreg rbx",
    ".seh_savereg rsp, 0",
    ".seh_setframe rbp, 0",
    ".seh_endprologue",
    // Unwinders look up the instruction before a return address. So an instruction that never runs
    // precedes the first one that does.
    "nop",
    "mov rcx, rdi",
    "mov rdx, rsi",
    "sub rsp, 32",
    "lea rax, [rip + 2f]",
    "push rax",
    "jmp [rsi + 8]",
    "2:",
    "int3",
    ".seh_endproc",
    //
    // RDI: pointer passed to the coroutine; RSI: link.
    function!("resume"),
    "push rbp",
    ".seh_pushreg rbp",
    "push rbx",
    ".seh_pushreg rbx",
    ".seh_endprologue",
    store_bounds!("rsi + 16"),
    "mov rax, [rsi]",
    "mov [rsi], rsp",
    "mov rsp, rax",
    tell_bounds!("rsi + 48"),
    "pop rbx",
    "pop rbp",
    "pop rcx",
    "jmp rcx",
    ".seh_endproc",
    //
    // RDI: pointer passed to the resumer; RSI: link.
    function!("suspend"),
    "push rbp",
    ".seh_pushreg rbp",
    "push rbx",
    ".seh_pushreg rbx",
    ".seh_endprologue",
    store_bounds!("rsi + 48"),
    "mov rax, [rsi]",
    "mov [rsi], rsp",
    "mov rsp, rax",
    tell_bounds!("rsi + 16"),
    "pop rbx",
    "pop rbp",
    "ret",
    ".seh_endproc",
    ".text",
);

unsafe extern "C" {
    #[link_name = symbol!("call")]
    fn switch_call(
        argument: *mut u8,
        base: usize,
        f: unsafe extern "C" fn(*mut u8),
        bounds: *const [*const OsBounds; 2],
    );
    #[link_name = symbol!("root")]
    fn switch_root();
    #[link_name = symbol!("resume")]
    fn switch_resume();
    #[link_name = symbol!("suspend")]
    fn switch_suspend();
}

/// Calls `f(argument)` on the stack ending at `base`.
///
/// # Safety
/// `base` is a multiple of the stack alignment. Below it is enough memory for `f`, in use by
/// nothing else, with the bounds `there`. `f` may be called with the argument, and does not unwind.
#[inline(always)]
pub unsafe fn call(
    argument: *mut u8,
    base: usize,
    f: unsafe extern "C" fn(*mut u8),
    here: &OsBounds,
    there: &OsBounds,
) {
    let bounds = [ptr::from_ref(here), ptr::from_ref(there)];
    // SAFETY: the caller guarantees an aligned and unused stack below `base`, and that `f` may be
    // called. To the caller's frame this is an ordinary call.
    unsafe { switch_call(argument, base, f, &bounds) }
}

/// Joins a coroutine to its resumer.
#[repr(C, align(16))]
pub struct Link {
    /// The record of the coroutine while it is suspended; the record of its resumer while it runs.
    record: usize,
    /// The coroutine's first function.
    begin: Begin,
    /// The bounds of the resumer's stack while the coroutine runs.
    resumer: OsBounds,
    /// The bounds of the stack on which the coroutine is suspended: that of the link, or one on
    /// which its code has continued.
    suspended: OsBounds,
}

const _: () =
    assert!(std::mem::offset_of!(Link, resumer) == 16 && std::mem::offset_of!(Link, suspended) == 48);

impl Link {
    /// Makes a coroutine that will call `begin(argument, link)` with frames from `sp` downwards.
    ///
    /// # Safety
    /// `link` is writable and stays in place. `sp` is a multiple of the stack alignment. Below it
    /// is a stack, in use by nothing else, with the bounds `bounds`.
    #[inline(always)]
    pub unsafe fn init(link: *mut Link, sp: usize, begin: Begin, bounds: OsBounds) {
        // SAFETY: the caller guarantees that `link` is writable and that the stack below `sp` is
        // unused.
        unsafe {
            let first = switch_root as usize + 1;
            let record = (sp as *mut [usize; 3]).sub(1);
            record.write([0, link as usize, first]);
            link.write(Link { record: record as usize, begin, resumer: OsBounds::new(), suspended: bounds });
        }
    }

    /// The bounds of the resumer's stack, while the coroutine runs.
    ///
    /// # Safety
    /// `link` was initialised, and stays in place as long as the result is used.
    #[inline(always)]
    pub unsafe fn resumer<'a>(link: *mut Link) -> &'a OsBounds {
        // SAFETY: the caller guarantees an initialised link that stays.
        unsafe { &(*link).resumer }
    }

    /// Suspends the coroutine and passes `passed` to its resumer. Returns the argument of the next
    /// resumption.
    ///
    /// # Safety
    /// The link belongs to the coroutine whose code calls this.
    #[inline(always)]
    pub unsafe fn suspend(link: *mut Link, passed: *mut ()) -> *mut () {
        let argument;
        // SAFETY: `resume` pops the return address, and goes to the label with SP, RBX and RBP
        // unchanged. All other registers are declared as clobbered.
        unsafe {
            asm!(
                "lea rax, [rip + 2f]",
                "push rax",
                "jmp {suspend}",
                "2:",
                suspend = sym switch_suspend,
                inlateout("rdi") passed => argument,
                in("rsi") link,
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                clobber_abi("sysv64"),
            );
        }
        argument
    }
}
