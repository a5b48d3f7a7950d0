//! Switches for 32-bit x86, with the System V calling convention.
//!
//! A suspended coroutine has a *record* on its stack. So has the resumer of a running coroutine:
//!
//! ```text
//!              ├────────────────┤ SP of the inline assembly: the canonical frame address (CFA)
//! record + 4   │ return address │ in the code that resumed or suspended
//! record       │ its EBP        │ what the link points to
//! record − 4   │ its ESI        │ ESP before the switch, and after
//!              ├────────────────┤
//! ```
//!
//! Since both records are alike, one function resumes and suspends, and one description suits both
//! sides. Before the switch of ESP it describes the one side (the CFA is ESP + 12, with the
//! registers at these places), after it the other.
//!
//! The first resumption finds a record whose return address is the local label `root`. The code
//! there stays as the outermost frame of the coroutine, with EBP = address of the link. Unwinders
//! find its caller through the link: the record of the coroutine's last resumer.
//!
//! Signal handlers use the stack from ESP downwards: there is no red zone. So the switch is a call
//! and a return on both sides. A processor predicts neither return, but those around them.

#[path = "own.rs"]
mod own;

use std::arch::{asm, global_asm};

use super::{Begin, OsBounds};
pub use own::{Link, call};
use own::{ROOT, switch_resume};

/// Whether unwinders take the frames of switches for signal frames.
pub const MARKED_AS_HANDLERS: bool = false;

global_asm!(
    // On the stack: argument, base, function.
    function!("call"),
    "push ebp",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset ebp, -8",
    "mov ebp, esp",
    ".cfi_def_cfa_register ebp",
    ends!("call"),
    may_lead_anywhere!(),
    "mov eax, [ebp + 8]",
    "mov ecx, [ebp + 16]",
    "mov esp, [ebp + 12]",
    "sub esp, 12",
    "push eax",
    "call ecx",
    "mov esp, ebp",
    "pop ebp",
    ".cfi_def_cfa esp, 4",
    ".cfi_restore ebp",
    "ret",
    ".cfi_endproc",
    //
    // The root of a coroutine. ROOT is the address of its second instruction.
    // ECX: argument; EDX: link; EBP: link.
    ".p2align 4",
    concat!(local!("root"), ":"),
    ".cfi_startproc",
    // DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg5 (EBP) 0, DW_OP_deref, DW_OP_plus_uconst 8.
    ".cfi_escape 0x0f, 5, 0x75, 0x00, 0x06, 0x23, 0x08",
    ".cfi_offset eip, -4",
    ".cfi_offset ebp, -8",
    ".cfi_offset esi, -12",
    // Unwinders look up the instruction before a return address. So an instruction that never runs
    // precedes the first one that does.
    "nop",
    "sub esp, 8",
    "push edx",
    "push ecx",
    "call [edx + 4]",
    "ud2",
    ".cfi_endproc",
    led_anywhere!(),
    constant!("root", concat!(local!("root"), " + 1")),
);

global_asm!(
    // ECX: pointer passed to the other side; EDX: link.
    function!("resume"),
    "push ebp",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset ebp, -8",
    "mov eax, [edx]",
    "mov [edx], esp",
    "push esi",
    ".cfi_def_cfa_offset 12",
    ".cfi_offset esi, -12",
    "lea esp, [eax - 4]",
    "pop esi",
    ".cfi_def_cfa_offset 8",
    ".cfi_restore esi",
    "pop ebp",
    ".cfi_def_cfa_offset 4",
    ".cfi_restore ebp",
    "ret",
    ".cfi_endproc",
    ends!("resume"),
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

    /// Resumes the coroutine. Returns the pointer passed to [`suspend`](Self::suspend) or
    /// [`finish`](Self::finish).
    ///
    /// # Safety
    /// The coroutine is new or suspended, and its code accepts the argument.
    #[inline(always)]
    pub unsafe fn resume(link: *mut Link, argument: *mut ()) -> *mut () {
        // SAFETY: the caller guarantees a coroutine that can be resumed.
        unsafe { switch(link, argument) }
    }

    /// Suspends the coroutine and passes `passed` to its resumer. Returns the argument of the next
    /// resumption.
    ///
    /// # Safety
    /// The link belongs to the coroutine whose code calls this.
    #[inline(always)]
    pub unsafe fn suspend(link: *mut Link, passed: *mut ()) -> *mut () {
        // SAFETY: the caller is the coroutine's code, so its resumer waits.
        unsafe { switch(link, passed) }
    }
}

/// Continues the other side of `link`, and passes `passed` to it. Returns the pointer that it
/// passes when it continues this side.
///
/// # Safety
/// The other side waits to be continued, and accepts the pointer.
#[inline(always)]
unsafe fn switch(link: *mut Link, passed: *mut ()) -> *mut () {
    let received;
    // SAFETY: this is a call. It returns with SP, ESI and EBP unchanged, and all other registers
    // are declared as clobbered.
    unsafe {
        asm!(
            "call {resume}",
            resume = sym switch_resume,
            inlateout("ecx") passed => received,
            inlateout("edx") link => _,
            lateout("ebx") _, lateout("edi") _,
            clobber_abi("C"),
        );
    }
    received
}
