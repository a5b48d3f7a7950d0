//! C can call Rust from any thread, on any stack, nested to any depth, and that Rust may wait.
//!
//! upcall is for authors of Rust libraries with a C interface:
//!
//! - An *upcall* is a call from C into Rust: [`export`], an attribute, or [`enter`] at the top of
//!   an `extern "C"` function. The body has at least 256 KiB of stack ([`Config::min_stack`]) on
//!   whichever stack C was, and its panics are caught.
//! - A *downcall* is a call from Rust into C, wrapped in [`downcall`]. C runs on its own stack
//!   again. If an upcall below it panics, the panic continues in the Rust code around the downcall
//!   once C has returned.
//! - [`wait`] waits for a future, from anywhere. On a *fiber*, Rust code with a stack of its own,
//!   it suspends the fiber. Elsewhere it blocks the thread.
//!
//! ```
//! use std::ffi::c_int;
//!
//! /// C calls this function. After a panic, C gets -1.
//! #[upcall::export(on_panic = -1)]
//! extern "C" fn checked_double(number: c_int) -> c_int {
//!     number.checked_mul(2).expect("overflow")
//! }
//!
//! // In place of C, a closure calls the function.
//! assert_eq!(upcall::downcall(|| checked_double(21)), 42);
//! // The panic stops in `checked_double`, and continues here after the downcall.
//! assert!(std::panic::catch_unwind(|| upcall::downcall(|| checked_double(c_int::MAX))).is_err());
//! ```
//!
//! Nothing has to be set up: a thread attaches at its first upcall and detaches at its exit.
//! The guide, [`upcall::guide`](https://docs.rs/upcall/latest/upcall/guide/), begins with a library
//! in ten minutes.
//!
//! # Which item for which task
//!
//! | you have | use |
//! |---|---|
//! | `catch_unwind` in each exported function | [`export`], or [`enter`] |
//! | callbacks without a way to report a panic through C | [`downcall`] |
//! | the same, and C's return value must not be lost | [`try_downcall`] |
//! | errors for C, by `?`, with a message | `on_error` of [`export`]; [`Status`], [`set_last_message`] |
//! | pointers, strings and arrays from C | [`arg`] |
//! | a panic that is your own error | [`Entry::keep_panic`], [`UpcallError::into_payload`] |
//! | closures for C to call | [`callback`] |
//! | Rust objects for C to keep, by an opaque pointer | [`Handle`] |
//! | strings and arrays for C to own | [`into_c_str`], [`into_c_slice`] |
//! | a host that scans or checks its stack | `stack = "caller"`, or [`StackChoice::Caller`] |
//! | recursion that is sometimes deep | [`with_stack`] |
//! | a host with coroutines whose bounds it knows | [`stackbounds::register`] |
//! | a process to inspect | [`snapshot`] |
//! | `block_on` in an exported function, perhaps inside another runtime | [`wait`] |
//! | a synchronous C library with callbacks that wait | [`Fiber`] and [`downcall_on_fiber`] |
//! | the same, through somebody else's Rust binding | [`Builder::c_on_fiber`] |
//! | code to run concurrently with C | [`Fibers::spawn`]; [`Fibers::scope`] if it borrows |
//! | an asynchronous operation that C starts, waits for and cancels | [`start`] |
//! | a host with an event loop of its own | [`LocalRuntime`] |
//! | waits that suspend the host's own coroutines | [`coroutines`] |
//! | a blocking call in a fiber | [`blocking`] |
//! | faults and stack overflows to explain | [`report::install`] |
//! | signal handlers that call Rust | [`attach`] |
//! | Rust code that writes to pipes and sockets, where `main` is not Rust | [`without_sigpipe`] |
//! | a thread that lives on after its last upcall | [`detach`] |
//! | C code that wants any of these itself | [`c_api!`] |
//!
//! # Features
//! - `runtime` (default): runs fibers and tasks. It adds [`Fibers::spawn`], [`Fibers::scope`],
//!   [`LocalRuntime`], [`blocking`], [`sleep`], [`start`], [`shutdown`] and their C functions.
//!   Without it, you bring an executor for fibers.
//! - `tokio`: waits cooperate with tokio. They block the threads of its runtimes in the way tokio
//!   expects, make sure that a runtime serves tokio's timers and sockets, and warn if a wait blocks
//!   the only thread able to serve it.
//! - `serde`: snapshots can be serialised.
//! - `tracing`: upcalls, downcalls and waits are spans for existing viewers, with the target
//!   `upcall` at the level `TRACE`.
//! - `sanitizer`: tells AddressSanitizer of every switch of stacks. Only for builds with
//!   `-Zsanitizer=address`.
//!
//! # Channels and locks
//! upcall has no channels or locks of its own. Those of `async-channel`, `async-lock`, `futures`,
//! `kanal` and `tokio::sync` all work through [`wait`], between fibers, threads and tasks. Never
//! hold the guard of a `std::sync::Mutex` across a wait: it would lock out the other fibers of the
//! thread.
//!
//! # Inside
//! The top of `src/crossing/mod.rs` tells the life of one call, step by step. `ARCHITECTURE.md` has
//! the map of the source.
#![warn(missing_debug_implementations)]

/// The README, as a doc test: its examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub mod arg;
mod backtrace;
pub mod callback;
mod capi;
mod config;
mod coroutine;
mod crossing;
mod drop_guards;
mod fiber;
mod forks;
mod function;
#[cfg(all(any(doc, doctest), feature = "runtime"))]
pub mod guide;
mod handle;
mod memory;
mod messages;
mod process;
mod published;
pub mod report;
#[cfg(feature = "runtime")]
mod runtime;
mod stack;
mod sync;
mod sys;
#[cfg(feature = "runtime")]
mod task;
mod thread;

pub use config::{Config, ConfigError, ForeignStacks, GuardPages, Reports, config};
pub use crossing::{
    Entry, InUse, Interrupted, Refusal, StackChoice, Status, UpcallError, UpcallErrorKind, attach, detach,
    downcall, downcall_on_fiber, downcall_on_system_stack, enter, entry, panic_is_pending, set_last_message,
    try_downcall, with_stack,
};
pub use fiber::coroutines;
pub use fiber::sigpipe::without_sigpipe;
/// The former name of [`UpcallError`].
#[deprecated(note = "renamed: use UpcallError")]
pub type Panicked = UpcallError;

#[cfg(feature = "tokio")]
pub use fiber::tokio_runtime;
pub use fiber::{Builder, Fiber, FiberLocal, Fibers, wait, wait_interruptible};
pub use handle::{Handle, HandleError};
pub use memory::{into_c_slice, into_c_str};
pub use report::Snapshot;
pub use report::snapshot::snapshot;
#[cfg(feature = "runtime")]
pub use runtime::{
    Elapsed, JoinError, JoinHandle, LocalRuntime, LocalRuntimeError, LocalRuntimeHandle, Scope,
    ScopedJoinHandle, Timer, Unfinished, UnfinishedFiber, blocking, shutdown, sleep, timeout, timer,
    yield_now,
};
pub use stack::pool::PoolUse;
#[cfg(feature = "runtime")]
pub use task::{
    Completion, CompletionFn, NobodyTakes, PartSender, StartError, Task, TaskBuilder, TaskError, TaskStatus,
    start,
};
#[doc(inline)]
pub use upcall_macros::export;

/// The C functions as Rust functions, without the prefix of [`c_api!`].
///
/// They are for libraries that export other names, or only some of the functions. Each does the
/// work of the C function with its name. Their comments address C programmers: `upcall.h` has the
/// same ones.
///
/// ```
/// use std::ffi::{c_char, c_int};
///
/// /// Copies the reason of the last failure, as `snprintf` does.
/// ///
/// /// # Safety
/// /// `buffer` is valid for writing `size` bytes.
/// #[unsafe(no_mangle)]
/// pub unsafe extern "C" fn geo_strerror(buffer: *mut c_char, size: usize) -> c_int {
///     // SAFETY: the caller guarantees that `buffer` is valid for writing `size` bytes.
///     unsafe { upcall::c::last_message(buffer, size) }
/// }
/// ```
pub mod c {
    #[cfg(feature = "runtime")]
    pub use crate::capi::coroutines::{
        coroutines_install, coroutines_next_ready, coroutines_run_ready, coroutines_uninstall,
    };
    pub use crate::capi::dump::dump;
    pub use crate::capi::memory::memory_free;
    #[cfg(feature = "runtime")]
    pub use crate::capi::runtime::{local_begin, local_end, local_run_ready, local_spawn, shutdown};
    pub use crate::capi::stacks::{report_install, stack_register, stack_remaining, stack_unregister};
    #[cfg(feature = "runtime")]
    pub use crate::capi::task::{task_cancel, task_free, task_next, task_status, task_wait};
    #[cfg(feature = "runtime")]
    crate::sys::with_descriptors! {
        pub use crate::capi::descriptors::{coroutines_fd, local_fd, task_fd};
    }
    #[cfg(feature = "runtime")]
    crate::sys::with_event_objects! {
        pub use crate::capi::event_objects::{coroutines_event, local_event, task_event};
    }
    pub use crate::capi::{last_message, thread_attach, thread_detach, version};
}

/// The text of `upcall.h`, the C header that declares the functions of [`c_api!`].
///
/// A build script writes it to the folder of the library's other headers:
///
/// ```
/// # let folder = std::env::temp_dir();
/// std::fs::write(folder.join("upcall.h"), upcall::C_HEADER)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// For the functions of `c_api!(geo)`, C code writes `#define UPCALL_PREFIX geo_` before it
/// includes the file. Without the definition, the header declares those of `c_api!()`.
pub const C_HEADER: &str = include_str!("../include/upcall.h");

/// The text of `upcall.hpp`, the C++20 side of [`C_HEADER`]: errors as exceptions, RAII, and tasks
/// for coroutines, `std::future` and `std::stop_token`.
///
/// A build script writes it beside `upcall.h`. The library's own C++ header defines its prefix and
/// its namespace before the include:
///
/// ```
/// # let folder = std::env::temp_dir();
/// let geo = "\
/// #pragma once
/// #define UPCALL_PREFIX geo_
/// #define UPCALL_NAMESPACE geo
/// #include \"upcall.hpp\"
/// ";
/// std::fs::write(folder.join("geo.hpp"), geo)?;
/// std::fs::write(folder.join("upcall.h"), upcall::C_HEADER)?;
/// std::fs::write(folder.join("upcall.hpp"), upcall::CPP_HEADER)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The opening of the file has an example of C++.
pub const CPP_HEADER: &str = include_str!("../include/upcall.hpp");

/// Support for the expansions of the macros.
#[doc(hidden)]
pub mod __private {
    pub use crate::crossing::export::{Fallible, Zero, export, export_or, or_error};
    pub use crate::crossing::export_answers::{AlsoOnPanic, OfAny, OfStatus, OnError, OnPanic, Returned};
    pub use upcall_macros::c_api;
}
