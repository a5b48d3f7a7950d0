//! The host's coroutines, on platforms with `ucontext`.

#[cfg_attr(
    all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "ucontext.rs"
)]
#[cfg_attr(
    not(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "unsupported.rs"
)]
mod coroutines;

pub use coroutines::{give_way, take_turns};
