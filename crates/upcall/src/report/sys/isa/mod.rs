//! Where SP was when a signal came: one file an architecture.
//!
//! Contract of each file: `stack_pointer(context)` is SP in the context that a handler was given, or `None` where it is not known how to read
//! it. `context` is valid.

#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), path = "x86_64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "aarch64"), path = "aarch64.rs")]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "generic.rs"
)]
mod selected;

pub(in crate::report) use selected::stack_pointer;
