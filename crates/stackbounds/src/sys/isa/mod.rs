//! Reading the stack pointer: one file an architecture, chosen here and nowhere else.
//!
//! Contract of each file: `stack_pointer() -> usize`, inlined, returns an address inside the
//! calling function's frame or at its lower end. Reading is all: it must not touch memory.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "generic.rs")]
mod selected;

pub use selected::stack_pointer;
