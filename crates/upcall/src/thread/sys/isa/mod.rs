//! Which thread is this: one file an architecture, where the thread pointer can be read at once.
//!
//! Contract of each file: `thread_token() -> usize` is a number that two threads alive at one time do not share, read anew at each
//! call. The address of a thread-local will not do: a compiler may remember it across a switch of stacks. `is_beside_token(address)` says whether that thread-local
//! of the calling thread is certainly at the same distance from the token in every thread, as those of the main program and of what it links are, and
//! those of libraries loaded later are not.

#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), path = "x86_64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "aarch64"), path = "aarch64.rs")]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "generic.rs"
)]
mod selected;

pub(crate) use selected::{is_beside_token, thread_token};
