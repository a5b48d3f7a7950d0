//! The stack pointer, the program counter and requests to Valgrind: one file an architecture,
//! selected only here.
//!
//! Contract of each file:
//!
//! - `stack_pointer() -> usize`, inlined: an address inside the calling function's frame, or at its
//!   lower end.
//! - `code_pointer() -> usize`, inlined: an address inside the calling function's code. 0 if
//!   `stack_pointer` is not that function's own SP.
//! - `valgrind(request)`: Valgrind's answer; 0 without Valgrind.
//!
//! The first two only read registers, and must not touch memory.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "x86", path = "x86.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[cfg_attr(target_arch = "arm", path = "arm.rs")]
#[cfg_attr(
    not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "x86",
        target_arch = "riscv64",
        target_arch = "arm"
    )),
    path = "generic.rs"
)]
mod selected;

pub use selected::{code_pointer, stack_pointer, valgrind};
