//! Memory for stacks from the operating system.
//!
//! Contract: `reserve` maps memory that costs nothing until it is touched; `guard` makes a range of it fault for ever
//! when touched; `give_back` returns the pages of a range, which reads as zeros afterwards. `page_size` and
//! `wait_a_little` are what they say.

#[cfg(unix)]
#[path = "unix.rs"]
mod selected;

#[cfg(not(unix))]
compile_error!("upcall runs on Unix so far; stackbounds alone runs elsewhere too");

pub(super) use selected::{give_back, guard, page_size, reserve, wait_a_little};
