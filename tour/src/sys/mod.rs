//! The answers of the platform: the host's coroutines, each with a [`Context`], and a limit.

#[cfg_attr(
    all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "ucontext.rs"
)]
#[cfg_attr(windows, path = "fibers.rs")]
#[cfg_attr(
    not(any(
        all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")),
        windows
    )),
    path = "unsupported.rs"
)]
mod context;
mod coroutines;

use context::Context;
pub use coroutines::{give_way, take_turns};

/// The least number of waiting fibers for each thread.
///
/// Only Linux tells upcall which threads sleep in the kernel. Elsewhere, a slow thread is taken for
/// one of them, and other threads run its fibers.
pub const FIBERS_A_THREAD: usize = if cfg!(target_os = "linux") { 4 } else { 1 };
