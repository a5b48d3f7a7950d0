//! C can call Rust from any thread, on any stack, nested to any depth, and that Rust may wait.
//!
//! For authors of Rust libraries with a C interface. [`export`], an attribute, or [`enter`] at the top of an `extern "C"` function runs its
//! body as an *upcall*: with enough stack whichever stack C was on, its panics caught. [`downcall`] around a call of C's functions
//! runs them as a *downcall*: on C's own stack again, with the panics of upcalls below carried across. [`wait`] waits for a future, wherever
//! the code is; on a *fiber*, Rust code with a stack of its own, that suspends the fiber and not the thread.
//!
//! | you have | use |
//! |---|---|
//! | `catch_unwind` in each exported function | [`export`], or [`enter`] |
//! | callbacks that cannot report a panic through C | [`downcall`] |
//! | closures for C to call | [`callback`] |
//! | objects that C keeps as a `void *` | [`Handle`] |
//! | a host that scans or checks its stack | `stack = "caller"`, or [`StackChoice::Caller`] |
//! | recursion that is sometimes deep | [`with_stack`] |
//! | a host with coroutines whose bounds it knows | [`stackbounds::register`] |
//! | a process to look into | [`snapshot`] |
//! | `block_on` in an exported function, perhaps inside another runtime | [`wait`] |
//! | a synchronous C library whose callbacks are to wait | [`Fiber`] and [`downcall_on_fiber`] |
//! | code that is to go on beside C | [`spawn`]; [`scope`] if it borrows |
//! | a host with an event loop of its own | [`LocalRuntime`] |
//! | a call that blocks, in a fiber | [`blocking`] |
//! | stack overflows to be explained | [`report::install`] |
//! | signal handlers that call you | [`attach`] |
//! | a thread that lives on and calls no more | [`detach`] |
//!
//! # Features
//! - `runtime` (default): what runs fibers, that is [`spawn`], [`scope`], [`LocalRuntime`], [`blocking`], [`sleep`], [`shutdown`] and their
//!   C functions. Without it, fibers are for the executor that you bring.
//! - `tokio`: waits know of tokio. They block the threads of its runtimes as it wants them to be blocked, see to it that what it serves is
//!   served, and say so when a wait can only be served by the thread that it blocks.
//! - `serde`: snapshots can be serialised.
//! - `tracing`: upcalls, downcalls and waits are spans, with the target `upcall` at the level `TRACE`, for existing viewers.
//! - `sanitizer`: AddressSanitizer is told of every switch of stacks. For builds with `-Zsanitizer=address` only.
//!
//! # Channels and locks
//! are other crates': those of `async-channel`, `async-lock`, `futures`, `kanal` and `tokio::sync` all work through [`wait`], between
//! fibers, threads and tasks. A `std::sync::Mutex` is for what is not held across a wait: its guard would lock out the other fibers of the
//! thread.
//!
//! The guide, [`upcall::guide`](https://docs.rs/upcall/latest/upcall/guide/), begins with a library in ten minutes. The life of one call is told
//! step by step at the top of `src/crossing/mod.rs`; `ARCHITECTURE.md` has the map.
#![warn(missing_debug_implementations)]

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub mod callback;
mod capi;
mod capi_dump;
#[cfg(feature = "runtime")]
mod capi_runtime;
mod capi_stacks;
mod config;
mod crossing;
mod fiber;
mod function;
#[cfg(all(any(doc, doctest), feature = "runtime"))]
pub mod guide;
mod handle;
mod process;
mod quiet;
pub mod report;
#[cfg(feature = "runtime")]
mod runtime;
mod shown;
mod spans;
mod stack;
mod sync;
mod thread;

pub use capi::{upcall_last_panic, upcall_thread_attach, upcall_thread_detach, upcall_version};
pub use capi_dump::upcall_dump;
#[cfg(feature = "runtime")]
pub use capi_runtime::{
    upcall_local_begin, upcall_local_end, upcall_local_fd, upcall_local_run_ready, upcall_local_spawn,
    upcall_shutdown,
};
pub use capi_stacks::{
    upcall_report_install, upcall_stack_register, upcall_stack_remaining, upcall_stack_unregister,
};
pub use config::{Config, ConfigError, ForeignStacks, GuardPages, config};
#[doc(hidden)]
pub use crossing::export as __private;
pub use crossing::{
    Entry, InUse, Panicked, Refusal, StackChoice, attach, detach, downcall, downcall_on_fiber, enter, entry,
    with_stack,
};
pub use fiber::{Builder, Fiber, FiberLocal, wait};
pub use handle::{Handle, HandleError};
pub use report::Snapshot;
pub use report::snapshot::snapshot;
#[cfg(feature = "runtime")]
pub use runtime::{
    JoinError, JoinHandle, LocalRuntime, LocalRuntimeError, Scope, ScopedJoinHandle, Unfinished,
    UnfinishedFiber, blocking, scope, shutdown, sleep, spawn, spawn_local, yield_now,
};
pub use stack::pool::PoolUse;
#[doc(inline)]
pub use upcall_macros::export;
