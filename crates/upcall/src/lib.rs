//! C can call Rust from any thread, on any stack, nested to any depth.
//!
//! For authors of Rust libraries with a C interface. [`enter`] at the top of an `extern "C"` function runs its body as an *upcall*: with
//! enough stack whichever stack C was on, its panics caught. [`downcall`] around a call of C's functions
//! runs them as a *downcall*: on C's own stack again, with the panics of upcalls below carried across.
//!
//! | you have | use |
//! |---|---|
//! | `catch_unwind` in each exported function | [`enter`] |
//! | callbacks that cannot report a panic through C | [`downcall`] |
//! | a host that scans or checks its stack | [`entry`]`().stack(`[`StackChoice::Caller`]`)` |
//! | recursion that is sometimes deep | [`with_stack`] |
//! | a host with coroutines whose bounds it knows | [`stackbounds::register`] |
//! | a process to look into | [`snapshot`] |
//!
//! The life of one call is told step by step at the top of `src/crossing/mod.rs`; `ARCHITECTURE.md` has the map.
#![warn(missing_debug_implementations)]

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod capi;
mod config;
mod crossing;
mod report;
mod stack;
mod thread;

pub use capi::{upcall_last_panic, upcall_version};
pub use config::{Config, ConfigError, ForeignStacks, GuardPages, config};
pub use crossing::{Entry, Panicked, Refusal, StackChoice, downcall, enter, entry, with_stack};
pub use report::{Call, Direction, Snapshot, StackKind, Thread, snapshot};
pub use stack::pool::PoolUse;
