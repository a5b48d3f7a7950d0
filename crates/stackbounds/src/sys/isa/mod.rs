//! Reading the stack pointer and the program counter, and talking to Valgrind: one file an architecture, chosen here and nowhere else.
//!
//! Contract of each file: `stack_pointer() -> usize`, inlined, returns an address inside the
//! calling function's frame or at its lower end. `code_pointer() -> usize`, inlined, returns an address inside the calling function's
//! code, if `stack_pointer` is that function's SP itself; else 0. Reading is all: they must not touch memory. `valgrind(request)`
//! answers 0 where Valgrind does not run.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "generic.rs")]
mod selected;

pub use selected::{code_pointer, stack_pointer, valgrind};
