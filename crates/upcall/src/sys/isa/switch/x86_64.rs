//! Switches for x86-64, with the System V calling convention.
//!
//! A suspended coroutine has a *record* on its stack. So has the resumer of a running coroutine:
//!
//! ```text
//!              ├────────────────┤ SP of the inline assembly: the canonical frame address (CFA)
//! record + 8   │ return address │ in the code that resumed or suspended
//! record       │ its RBP        │ what the link points to
//! record − 8   │ its RBX        │ RSP before the switch, and after
//!              ├────────────────┤
//! ```
//!
//! Since both records are alike, one description suits both sides. Before the switch of RSP it
//! describes the one side (the CFA is RSP + 24, with the registers at these places), after it the
//! other.
//!
//! The first resumption finds a record whose return address is the local label `root`. The code
//! there stays as the outermost frame of the coroutine, with RBP = address of the link. Unwinders
//! find its caller through the link: the record of the coroutine's last resumer.
//!
//! A return address is never in a register alone, since not every unwinder looks there. For some
//! instructions it is in the red zone: the 128 bytes below RSP, untouched by signal handlers.
//!
//! Processors predict the target of a `ret` from the last `call`. So the resumer calls `resume`,
//! and `resume` jumps into the coroutine. The coroutine jumps to `suspend`, and its `ret` leads to
//! the caller of `resume`.

#[path = "own.rs"]
mod own;
#[path = "x86_64_resume.rs"]
mod resume;

use std::arch::{asm, global_asm};

use super::{Begin, OsBounds};
pub use own::{Link, call};
use own::{ROOT, switch_resume, switch_suspend};

/// Whether unwinders take the frames of switches for signal frames.
pub const MARKED_AS_HANDLERS: bool = false;

global_asm!(
    // RDI: argument; RSI: base; RDX: function.
    function!("call"),
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    ends!("call"),
    may_lead_anywhere!(),
    "mov rsp, rsi",
    "call rdx",
    "mov rsp, rbp",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    ".cfi_restore rbp",
    "ret",
    ".cfi_endproc",
    //
    // The root of a coroutine. ROOT is the address of its second instruction.
    // RDI: argument; RSI: link; RBP: link.
    ".p2align 4",
    concat!(local!("root"), ":"),
    ".cfi_startproc",
    // DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg6 (RBP) 0, DW_OP_deref, DW_OP_plus_uconst 16.
    ".cfi_escape 0x0f, 5, 0x76, 0x00, 0x06, 0x23, 0x10",
    ".cfi_offset rip, -8",
    ".cfi_offset rbp, -16",
    ".cfi_offset rbx, -24",
    // Unwinders look up the instruction before a return address. So an instruction that never runs
    // precedes the first one that does.
    "nop",
    "lea rcx, [rip + 2f]",
    "push rcx",
    "jmp [rsi + 8]",
    "2:",
    "ud2",
    ".cfi_endproc",
    led_anywhere!(),
    constant!("root", concat!(local!("root"), " + 1")),
);

global_asm!(
    // RDI: pointer passed to the coroutine; RSI: link.
    function!("resume"),
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rax, [rsi]",
    "mov [rsi], rsp",
    "push rbx",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbx, -24",
    "lea rsp, [rax - 8]",
    "pop rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_restore rbx",
    "pop rbp",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore rbp",
    "lea rsp, [rsp + 8]",
    ".cfi_def_cfa_offset 0",
    "jmp [rsp - 8]",
    ".cfi_endproc",
    ends!("resume"),
);

global_asm!(
    // RDI: pointer passed to the resumer; RSI: link. The return address is below RSP.
    function!("suspend"),
    ".cfi_def_cfa_offset 0",
    "lea rsp, [rsp - 8]",
    ".cfi_def_cfa_offset 8",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rcx, rsp",
    "push rbx",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbx, -24",
    "mov rax, [rsi]",
    "lea rsp, [rax - 8]",
    "mov [rsi], rcx",
    "pop rbx",
    ".cfi_def_cfa_offset 16",
    ".cfi_restore rbx",
    "pop rbp",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore rbp",
    "ret",
    ".cfi_endproc",
    ends!("suspend"),
);

impl Link {
    /// Makes a coroutine that will call `begin(argument, link)` with frames from `sp` downwards.
    ///
    /// # Safety
    /// `link` is writable and stays in place. `sp` is a multiple of the stack alignment. Below it
    /// is a stack, in use by nothing else.
    #[inline(always)]
    pub unsafe fn init(link: *mut Link, sp: usize, begin: Begin, _bounds: OsBounds) {
        // SAFETY: the caller guarantees that `link` is writable and that the stack below `sp` is
        // unused. `ROOT` is a constant.
        unsafe {
            let root = ROOT;
            (sp as *mut [usize; 3]).sub(1).write([0, link as usize, root]);
            link.write(Link { record: sp - 2 * size_of::<usize>(), begin });
        }
    }

    /// Suspends the coroutine and passes `passed` to its resumer. Returns the argument of the next
    /// resumption.
    ///
    /// # Safety
    /// The link belongs to the coroutine whose code calls this.
    #[inline(always)]
    pub unsafe fn suspend(link: *mut Link, passed: *mut ()) -> *mut () {
        let argument;
        // SAFETY: `resume` returns to the label with SP, RBX and RBP unchanged. All other registers
        // are declared as clobbered.
        unsafe {
            asm!(
                "lea rax, [rip + 2f]",
                "mov [rsp - 8], rax",
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
