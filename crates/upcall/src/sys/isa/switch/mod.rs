//! Switching stacks: one file per architecture, chosen here and nowhere else.
//!
//! Rule: **the unwind information is right at every instruction.** A sampling profiler interrupts
//! anywhere, even between two instructions of a switch, and walks from there to the thread's first
//! frame. So inline assembly never moves SP, since the role of SP in the compiler's unwind
//! information is not known to us. Functions in assembly move it, and describe each step.
//!
//! Contract of each file:
//! - `call(argument, base, f, ..)` calls `f(argument)` on the stack growing downwards from `base`,
//!   and returns when `f` has returned.
//! - A [`Link`] joins a coroutine to its resumer. It lies at the base of the coroutine's stack.
//!   `init` makes the first resumption call `begin(argument, link)`. `resume(argument)` returns the
//!   pointer passed by the coroutine to `suspend` or `finish`. `suspend` returns the argument of
//!   the next resumption.
//! - Nothing unwinds out of `f` or `begin`.
//! - On architectures with frame pointers, they form a chain across the switch.
//!
//! Windows keeps the bounds of the stack in use in the thread's TEB: to grow the stack, to probe
//! large frames, and to check the frames of an exception. So each switch exchanges them. While a
//! stack is left, its bounds are in an [`OsBounds`], and **each stack has one at a time**: the
//! system changes them while the stack is in use. `OsBounds::of_stack` has those of a stack on
//! which nothing runs, and `of_memory` those of a block used as a stack, all of it committed.
//! `note_in_use` stores the bounds of the stack in use. `are_told_at` and `tell` notice and mend
//! wrong ones. An [`OsBoundsRef`] leads to bounds that are in a waiting frame, or in a [`Link`].
//! Elsewhere than on Windows, all of these are empty.

#[macro_use]
#[allow(unused_macros, reason = "corosensei.rs has no assembly")]
mod names {
    /// The name of a symbol of ours. It contains the version of upcall.
    ///
    /// A program may contain several versions, with different functions.
    macro_rules! symbol {
        ($part:literal) => {
            concat!(
                "upcall_switch_",
                env!("CARGO_PKG_VERSION_MAJOR"),
                "_",
                env!("CARGO_PKG_VERSION_MINOR"),
                "_",
                env!("CARGO_PKG_VERSION_PATCH"),
                "_",
                $part
            )
        };
    }

    /// The name of a label that the object file does not keep.
    ///
    /// It contains the version, too: link-time optimisation puts the assembly of all versions into
    /// one file.
    macro_rules! local {
        ($part:literal) => {
            concat!(".L", symbol!($part))
        };
    }
}

#[macro_use]
#[allow(unused_macros, reason = "corosensei.rs has no assembly")]
mod pointers {
    /// The directive for a word with an address.
    #[cfg(target_pointer_width = "64")]
    macro_rules! pointer {
        () => {
            ".quad "
        };
    }
    #[cfg(target_pointer_width = "32")]
    macro_rules! pointer {
        () => {
            ".long "
        };
    }
}

#[cfg(not(target_vendor = "apple"))]
#[macro_use]
#[allow(unused_macros, reason = "corosensei.rs has no assembly")]
mod directives {
    /// Opens a function. A program has one definition of it, even if several libraries contain one.
    macro_rules! function {
        ($part:literal) => {
            concat!(
                ".weak ",
                symbol!($part),
                "\n.hidden ",
                symbol!($part),
                "\n.type ",
                symbol!($part),
                ", %function\n.p2align 4\n",
                symbol!($part),
                ":\n.cfi_startproc"
            )
        };
    }

    /// Ends the symbol `$part`, for tools that find a name by an address.
    macro_rules! ends {
        ($part:literal) => {
            concat!(".size ", symbol!($part), ", . - ", symbol!($part))
        };
    }

    /// Tells gdb that frames of the code from here on may have callers at any address.
    ///
    /// gdb expects callers above their callees, except for `__morestack`, a function of compilers
    /// with split stacks. So the code gets this name. Marking it as a signal frame would satisfy
    /// gdb as well. But other unwinders take marked frames for the kernel's.
    ///
    /// A file can define the name once; see `local!`.
    macro_rules! may_lead_anywhere {
        () => {
            concat!(
                ".ifndef __morestack\n.type __morestack, %function\n__morestack:\n.set ",
                local!("is_named"),
                ", 1\n.endif"
            )
        };
    }

    /// Ends the code begun by `may_lead_anywhere!`.
    macro_rules! led_anywhere {
        () => {
            concat!(".ifdef ", local!("is_named"), "\n.size __morestack, . - __morestack\n.endif")
        };
    }

    /// Defines a word holding the address `$value`, which has no symbol, for Rust code to read.
    macro_rules! constant {
        ($part:literal, $value:expr) => {
            concat!(
                ".pushsection .data.rel.ro.",
                symbol!($part),
                ",\"aw\",%progbits\n.weak ",
                symbol!($part),
                "\n.hidden ",
                symbol!($part),
                "\n.p2align 3\n",
                symbol!($part),
                ":\n",
                pointer!(),
                $value,
                "\n.popsection"
            )
        };
    }
}

#[cfg(target_vendor = "apple")]
#[macro_use]
#[allow(unused_macros, reason = "corosensei.rs has no assembly")]
mod directives {
    macro_rules! function {
        ($part:literal) => {
            concat!(
                ".globl _",
                symbol!($part),
                "\n.private_extern _",
                symbol!($part),
                "\n.weak_definition _",
                symbol!($part),
                "\n.p2align 4\n_",
                symbol!($part),
                ":\n.cfi_startproc"
            )
        };
    }

    macro_rules! ends {
        ($part:literal) => {
            ""
        };
    }

    macro_rules! may_lead_anywhere {
        () => {
            ""
        };
    }

    macro_rules! led_anywhere {
        () => {
            ""
        };
    }

    macro_rules! constant {
        ($part:literal, $value:expr) => {
            concat!(
                ".section __DATA,__const\n.globl _",
                symbol!($part),
                "\n.private_extern _",
                symbol!($part),
                "\n.weak_definition _",
                symbol!($part),
                "\n.p2align 3\n_",
                symbol!($part),
                ":\n.quad ",
                $value,
                "\n.text"
            )
        };
    }
}

#[cfg_attr(all(windows, target_arch = "x86_64"), path = "windows_x86_64.rs")]
#[cfg_attr(all(not(windows), target_arch = "x86_64", not(upcall_generic)), path = "x86_64.rs")]
#[cfg_attr(all(target_arch = "aarch64", not(upcall_generic)), path = "aarch64.rs")]
#[cfg_attr(all(target_arch = "x86", not(upcall_generic)), path = "x86.rs")]
#[cfg_attr(
    all(
        not(windows),
        any(upcall_generic, not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "x86")))
    ),
    path = "corosensei.rs"
)]
mod selected;

#[cfg_attr(all(windows, target_arch = "x86_64"), path = "teb.rs")]
#[cfg_attr(not(all(windows, target_arch = "x86_64")), path = "no_os_bounds.rs")]
#[allow(dead_code, reason = "AddressSanitizer's switches use less")]
mod os_bounds;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "x86",
    target_arch = "riscv64",
    target_arch = "arm"
)))]
compile_error!(
    "upcall cannot read SP on this architecture: write stackbounds/src/sys/isa/<architecture>.rs, and add \
     the architecture here (ARCHITECTURE.md, `What a port writes`)"
);

pub(crate) use os_bounds::{OsBounds, OsBoundsRef};
pub(crate) use selected::MARKED_AS_HANDLERS;
pub(crate) use selected::{Link, call};

/// Alignment of SP at a call, in bytes.
pub(crate) const STACK_ALIGNMENT: usize = 16;

/// The first function of a coroutine. It gets the argument of the first resumption.
pub(crate) type Begin = unsafe extern "C" fn(argument: *mut (), link: *mut Link) -> !;

impl Link {
    /// The resumer's bounds, while the coroutine runs.
    ///
    /// # Safety
    /// `link` was initialised, and stays in place as long as the result is used.
    #[cfg(not(all(windows, target_arch = "x86_64")))]
    #[inline(always)]
    pub unsafe fn resumer<'a>(_link: *mut Link) -> &'a OsBounds {
        &OsBounds
    }

    /// Ends the coroutine and passes `passed` to its resumer.
    ///
    /// # Safety
    /// As for [`suspend`](Self::suspend). In addition, the coroutine is not resumed again.
    #[inline(always)]
    pub unsafe fn finish(link: *mut Link, passed: *mut ()) -> ! {
        // SAFETY: the caller guarantees that the link is its own coroutine's. The coroutine is not
        // resumed again, so nothing returns to the frames abandoned here. corosensei would unwind
        // them if it dropped its coroutine, but that is never dropped.
        unsafe { Self::suspend(link, passed) };
        unreachable!("upcall: a coroutine was resumed after its end")
    }
}
