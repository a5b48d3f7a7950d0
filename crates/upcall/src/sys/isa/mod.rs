//! The processor's part: the calling thread's token and its words, the place of an interrupt, and
//! the switch of stacks. One file for each architecture; [`switch`] is apart.
//!
//! Contract of each file:
//!
//! - `thread_token() -> usize` is a number unique among live threads, read anew at each call. The
//!   address of a thread-local is not suitable: a compiler may remember it across a switch of
//!   stacks.
//! - `is_beside_token(address)` returns whether this thread-local of the calling thread is
//!   certainly at the same distance from the token in every thread. This holds for static TLS, of
//!   the main program and the libraries linked to it. It does not hold for libraries loaded later.
//! - `swap_if_at::<OFFSET>(base, from, to)` and `add_at::<OFFSET>(base, number)` change the word at
//!   `base + OFFSET` in one step. The thread's signal handlers, and the coroutines that they switch
//!   to, run before or after it. Only the thread itself changes such a word; others may read it.
//! - `interrupted_at(context)`, async-signal-safe: SP of the code interrupted by a signal, and the
//!   address of the interrupted instruction. `None` if the layout of the context is not known.
//!
//! `walk(step)` goes over the frames of the calling thread, and `function_at(address)` is the start
//! of a function. On Unix, the unwinder's interface is almost the same on all architectures:
//! `frame(context)` is a frame of a walk.

pub(crate) mod switch;
#[cfg_attr(all(target_arch = "arm", not(target_vendor = "apple")), path = "ehabi.rs")]
#[cfg_attr(windows, path = "seh.rs")]
mod unwinder;
#[cfg(unix)]
mod walk;

#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), path = "x86_64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "aarch64"), path = "aarch64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "x86"), path = "x86.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "riscv64"), path = "riscv64.rs")]
#[cfg_attr(windows, path = "windows_x86_64.rs")]
#[cfg_attr(
    not(any(
        windows,
        all(
            target_os = "linux",
            any(
                target_arch = "x86_64",
                target_arch = "aarch64",
                target_arch = "x86",
                target_arch = "riscv64"
            )
        )
    )),
    path = "generic.rs"
)]
mod selected;

#[cfg(unix)]
pub(crate) use selected::interrupted_at;
pub(crate) use selected::{add_at, is_beside_token, swap_if_at, thread_token};
#[cfg(unix)]
use unwinder::frame;
pub(crate) use unwinder::function_at;
#[cfg(windows)]
pub(crate) use unwinder::walk;
#[cfg(unix)]
pub(crate) use walk::walk;

/// A frame of the calling thread, as the unwinder finds it.
pub(crate) struct Frame {
    /// The start of its function.
    pub function: usize,
    pub sp: usize,
    /// The frame calls a signal handler: the kernel made it. Known only if the C library has unwind
    /// information for such frames.
    pub calls_handler: bool,
    /// The frame is to go on at the first instruction of a function: it is no frame, but a
    /// coroutine began here with an address in place of a caller's. A function with a call at its
    /// very end, to one that never returns, may look the same.
    pub is_made_up: bool,
}
