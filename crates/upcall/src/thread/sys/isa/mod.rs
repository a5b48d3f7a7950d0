//! Which thread is this: one file an architecture, where the thread pointer can be read at once.
//!
//! Contract of each file: `thread_token() -> usize` is a number that two threads alive at one time do not share, read anew at each
//! call. The address of a thread-local will not do: a compiler may remember it across a switch of stacks.

#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), path = "x86_64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "aarch64"), path = "aarch64.rs")]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "generic.rs"
)]
mod selected;

pub(crate) use selected::thread_token;
