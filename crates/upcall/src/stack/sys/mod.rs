//! Memory for stacks from the operating system.
//!
//! Contract of each implementation:
//! - `reserve` maps memory. It uses no memory until it is touched, and is not locked. The result
//!   tells how the process locks new memory otherwise.
//! - `lock` locks a range in this way.
//! - `guard` makes a range fault for ever when touched.
//! - `give_back` returns the pages of a range to the system, and unlocks it. Afterwards the range
//!   reads as zeros or as before.
//! - `page_size` returns the size of a page.
//! - `wait_a_little` lets other threads run.
//! - `cpp_runtime` returns the address of `__cxa_get_globals` of a C++ runtime that is never
//!   unloaded. If it finds none, the caller may ask again later. It takes no lock that the loader
//!   holds while constructors run.

#[cfg(unix)]
#[path = "unix.rs"]
mod selected;

#[cfg(not(unix))]
compile_error!("upcall runs on Unix so far; stackbounds alone runs elsewhere too");

#[cfg_attr(any(target_os = "linux", target_os = "android", target_os = "freebsd"), path = "elf.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")), path = "not_elf.rs")]
mod objects;

pub(crate) use objects::cpp_runtime;
pub(crate) use selected::{Locks, give_back, guard, lock, page_size, reserve, wait_a_little};
