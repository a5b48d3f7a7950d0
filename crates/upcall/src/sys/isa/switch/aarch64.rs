//! Switches for aarch64, with the procedure call standard for the 64-bit Arm architecture.
//!
//! A suspended coroutine has a *record* on its stack. So has the resumer of a running coroutine:
//!
//! ```text
//!              ├────────────────┤ SP of the inline assembly: the canonical frame address (CFA)
//! record + 16  │ its X19        │ and a word of padding
//! record + 8   │ return address │ in the code that resumed or suspended
//! record       │ its X29        │ SP before the switch, and after: what the link points to
//!              ├────────────────┤
//! ```
//!
//! Since both records are alike, one description suits both sides. Before the switch of SP it
//! describes the one side (the CFA is SP + 32, with the registers at these places), after it the
//! other.
//!
//! The first resumption finds a record whose return address is the local label `root`. The code
//! there stays as the outermost frame of the coroutine, with X29 = address of the link. Unwinders
//! find its caller through the link: the record of the coroutine's last resumer.
//!
//! Processors predict the target of a `ret` from the last `bl`. So the resumer calls `resume` by
//! `bl`, and `resume` jumps into the coroutine by `br`. The coroutine jumps to `suspend`, and its
//! `ret` leads to the caller of `resume`.

#[path = "own.rs"]
mod own;

use std::arch::{asm, global_asm};

use super::{Begin, OsBounds};
pub use own::{Link, call};
use own::{ROOT, switch_resume, switch_suspend};

/// Whether unwinders take the frames of switches for signal frames.
pub const MARKED_AS_HANDLERS: bool = false;

global_asm!(
    // X0: argument; X1: base; X2: function.
    function!("call"),
    "stp x29, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "mov x29, sp",
    ".cfi_def_cfa_register x29",
    ends!("call"),
    may_lead_anywhere!(),
    "mov sp, x1",
    "blr x2",
    "mov sp, x29",
    "ldp x29, x30, [sp], #16",
    ".cfi_def_cfa sp, 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
    "ret",
    ".cfi_endproc",
    //
    // The root of a coroutine. ROOT is the address of its second instruction.
    // X0: argument; X1: link; X29: link.
    ".p2align 4",
    concat!(local!("root"), ":"),
    ".cfi_startproc",
    // DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg29 (X29) 0, DW_OP_deref, DW_OP_plus_uconst 32.
    ".cfi_escape 0x0f, 5, 0x8d, 0x00, 0x06, 0x23, 0x20",
    ".cfi_offset x19, -16",
    ".cfi_offset x30, -24",
    ".cfi_offset x29, -32",
    // Unwinders look up the instruction before a return address. So an instruction that never runs
    // precedes the first one that does.
    "nop",
    "ldr x2, [x1, #8]",
    "adr x30, 2f",
    "br x2",
    "2:",
    "brk #1",
    ".cfi_endproc",
    led_anywhere!(),
    constant!("root", concat!(local!("root"), " + 4")),
);

global_asm!(
    // X0: pointer passed to the coroutine; X1: link.
    function!("resume"),
    "stp x29, x30, [sp, #-32]!",
    ".cfi_def_cfa_offset 32",
    ".cfi_offset x29, -32",
    ".cfi_offset x30, -24",
    "str x19, [sp, #16]",
    ".cfi_offset x19, -16",
    "ldr x2, [x1]",
    "mov x3, sp",
    "str x3, [x1]",
    "mov sp, x2",
    "ldr x19, [sp, #16]",
    ".cfi_restore x19",
    "ldp x29, x30, [sp], #32",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
    "br x30",
    ".cfi_endproc",
    ends!("resume"),
);

global_asm!(
    // X0: pointer passed to the resumer; X1: link; X30: return address.
    function!("suspend"),
    "stp x29, x30, [sp, #-32]!",
    ".cfi_def_cfa_offset 32",
    ".cfi_offset x29, -32",
    ".cfi_offset x30, -24",
    "str x19, [sp, #16]",
    ".cfi_offset x19, -16",
    "ldr x2, [x1]",
    "mov x3, sp",
    "mov sp, x2",
    "str x3, [x1]",
    "ldr x19, [sp, #16]",
    ".cfi_restore x19",
    "ldp x29, x30, [sp], #32",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
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
            let record = (sp as *mut [usize; 4]).sub(1);
            record.write([link as usize, root, 0, 0]);
            link.write(Link { record: record as usize, begin });
        }
    }

    /// Resumes the coroutine. Returns the pointer passed to [`suspend`](Self::suspend) or
    /// [`finish`](Self::finish).
    ///
    /// # Safety
    /// The coroutine is new or suspended, and its code accepts the argument.
    #[inline(always)]
    pub unsafe fn resume(link: *mut Link, argument: *mut ()) -> *mut () {
        let passed;
        // SAFETY: this is a call. It returns with SP, X19 and X29 unchanged, and all other
        // registers are declared as clobbered.
        unsafe {
            asm!(
                "bl {resume}",
                resume = sym switch_resume,
                inlateout("x0") argument => passed,
                in("x1") link,
                lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _, lateout("x24") _,
                lateout("x25") _, lateout("x26") _, lateout("x27") _, lateout("x28") _,
                clobber_abi("C"),
            );
        }
        passed
    }

    /// Suspends the coroutine and passes `passed` to its resumer. Returns the argument of the next
    /// resumption.
    ///
    /// # Safety
    /// The link belongs to the coroutine whose code calls this.
    #[inline(always)]
    pub unsafe fn suspend(link: *mut Link, passed: *mut ()) -> *mut () {
        let argument;
        // SAFETY: `resume` returns to the label with SP, X19 and X29 unchanged. All other registers
        // are declared as clobbered.
        unsafe {
            asm!(
                "adr x30, 2f",
                "b {suspend}",
                "2:",
                suspend = sym switch_suspend,
                inlateout("x0") passed => argument,
                in("x1") link,
                lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _, lateout("x24") _,
                lateout("x25") _, lateout("x26") _, lateout("x27") _, lateout("x28") _,
                clobber_abi("C"),
            );
        }
        argument
    }
}
