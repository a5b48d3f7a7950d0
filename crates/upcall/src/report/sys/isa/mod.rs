//! SP and the program counter of the code interrupted by a signal: one file per architecture.
//!
//! Contract of each file: `context` is the valid third argument of a signal handler.
//! `stack_pointer(context)` is SP of the interrupted code. `code_pointer(context)` is the address
//! of the interrupted instruction. Both return `None` if the layout of the context is not known.

#[cfg_attr(all(target_os = "linux", target_arch = "x86_64"), path = "x86_64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "aarch64"), path = "aarch64.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "x86"), path = "x86.rs")]
#[cfg_attr(all(target_os = "linux", target_arch = "riscv64"), path = "riscv64.rs")]
#[cfg_attr(
    not(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "x86", target_arch = "riscv64")
    )),
    path = "generic.rs"
)]
mod selected;

pub(in crate::report) use selected::{code_pointer, stack_pointer};
