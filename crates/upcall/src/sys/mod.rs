//! The answers of the operating system and of the processor: the one place to edit for a port.
//!
//! A system is one file here and its line below. That of a Unix imports all functions of `unix`,
//! and defines anew those with a better answer. An architecture is one file in [`isa`], and later
//! one for its own switch of stacks.
//!
//! # Memory of stacks
//!
//! - `reserve(size, align)` maps memory. It uses no memory until it is touched, and is not locked.
//!   The result tells how the process locks new memory otherwise (`Locks`). On Windows, it is
//!   address space alone until one of the next two functions commits memory to it.
//! - `commit` makes a range usable, and `commit_stack` makes it a stack: it grows downwards from
//!   its high end as it is used. If they return `false`, there is no memory.
//! - `lock` locks a range in this way.
//! - `guard` makes a range fault for ever when touched. `guard_by_advice` does the same without
//!   splitting the mapping, if the system can.
//! - `give_back` returns the pages of a stack to the system, and unlocks it. Afterwards the range
//!   reads as zeros or as before. On Windows, only its highest page can be read, and the range is
//!   no stack until the next `commit_stack`. The system uses some bytes below a stack there, within
//!   the guard.
//! - `page_size()`: in bytes.
//! - `wait_a_little(round)` lets other threads run.
//!
//! # The process
//!
//! - `constructor!` has the loader call a function: before `main`, or in `dlopen`.
//! - `pin(address)`: `dlclose` has no effect any more on the library with this address.
//! - `cpp_runtime()`: the address of `__cxa_get_globals` of a C++ runtime that is never unloaded.
//!   If it finds none, the caller may ask again later. It takes no lock that the loader holds while
//!   constructors run.
//!
//! # Threads and their signals
//!
//! - `os_thread_id()`: the calling thread's number, as debuggers show it. `thread_name(id)`: the
//!   name of the live thread with this number.
//! - `call_at_exit(value, f)` has `f(value)` called when the calling thread exits, not when one of
//!   its coroutines ends. Returns whether this is possible. A later call replaces the value; each
//!   call has the same `f`. `exit_value()` is the value, or null; async-signal-safe.
//! - The alternate stack of a thread is where handlers of an overflowed stack run.
//!   `lacks_alternate_stack` is never true where no handler needs one. `set_alternate_stack` and
//!   `remove_alternate_stack` change it.
//! - `Mask` is a signal mask. `mask()` is the thread's, and `set_mask` sets another and returns the
//!   previous one. `asynchronous()` has all signals except faults and those of the C library.
//! - SIGPIPE of the calling thread: `block_sigpipe` returns whether it was blocked, and
//!   `unblock_sigpipe` unblocks it. `sigpipe_is_pending`, and `take_sigpipe`, which consumes a
//!   pending one, if there is one; the signal is blocked.
//!
//! # Executors
//!
//! - An `OsEvent` is a descriptor, readable from `signal` to `clear`. The latter returns the number
//!   of signals. Executed programs do not inherit the descriptor. After `renew`, it is not shared
//!   with the process from which this one was forked. On Windows, it is an event object. `EventRef`
//!   is a borrowed one, and `RawEvent` its number. The macros `with_descriptors!` and
//!   `with_event_objects!` keep the items of systems with the one or the other.
//! - `is_blocked(number)`: whether the thread with the result of its `thread_number()` sleeps in
//!   the kernel, and neither computes nor waits for a core. If nothing is known: `true`.
//!
//! # Reports of faults
//!
//! All of these are async-signal-safe.
//!
//! - `write_all(descriptor, bytes)` allocates nothing; `STDERR` is a descriptor.
//! - [`faults`] has the handlers. With POSIX, they ask `fault_address(info)` for the address of the
//!   invalid access, if the system tells it.
//! - `own_thread_name(buffer)`: the calling thread's name.
//! - `lowest_resident(low, high)`: the lowest page of the range in memory.
//! - `reach_below_own_stack()`: the number of bytes below the calling thread's own stack with no
//!   other mapping, or probably none. An access there is an overflow of the own stack.

pub(crate) mod faults;
pub(crate) mod isa;
#[cfg(unix)]
#[allow(dead_code, reason = "each system defines some of its functions anew")]
mod unix;

#[cfg(not(any(unix, all(windows, target_arch = "x86_64"))))]
compile_error!("upcall runs on Unix and on 64-bit Windows; stackbounds alone runs elsewhere too");

// `cfg(target_thread_local)` would say so, but is not stable. `build.rs` asks the compilers that
// tell. Stable ones come with standard libraries for these, from Rust itself or from the system.
#[cfg(any(
    upcall_no_thread_local,
    target_os = "android",
    target_os = "openbsd",
    target_os = "illumos",
    target_os = "solaris",
    target_os = "haiku",
    target_os = "nto",
    target_env = "ohos",
    all(target_os = "linux", target_abi = "x32"),
    all(windows, target_env = "gnu", not(target_abi = "llvm"))
))]
compile_error!(
    "upcall needs native thread-locals, and Rust has none on this system: it would free the state of an exiting \
     thread before the last call"
);

/// The number of bytes below a stack in which an access counts as an overflow.
///
/// It is more than a page, because frames of C code are not probed and may reach further.
pub(crate) const REACH: usize = 64 << 10;

/// Has the loader call `$function` when it loads the program or library. The name is the static
/// that does so; code that every user needs must refer to it.
macro_rules! constructor {
    ($name:ident, $function:path) => {
        #[used]
        #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
        #[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
        #[cfg_attr(not(any(target_vendor = "apple", windows)), unsafe(link_section = ".init_array"))]
        static $name: extern "C" fn() = $function;
    };
}
pub(crate) use constructor;

#[cfg_attr(any(target_os = "linux", target_os = "freebsd"), path = "elf.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "freebsd")), path = "not_elf.rs")]
mod objects;

#[cfg(not(upcall_loom))]
#[cfg_attr(target_os = "linux", path = "eventfd.rs")]
#[cfg_attr(all(unix, not(target_os = "linux")), path = "pipe.rs")]
#[cfg_attr(windows, path = "windows/event.rs")]
mod event;

#[cfg_attr(unix, path = "descriptors.rs")]
#[cfg_attr(windows, path = "windows/event_objects.rs")]
mod events;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as selected;
#[cfg(all(unix, not(target_os = "linux")))]
use unix as selected;
#[cfg(windows)]
use windows as selected;

#[cfg(not(upcall_loom))]
pub(crate) use event::OsEvent;
pub(crate) use events::{EventRef, with_descriptors, with_event_objects};
#[cfg(feature = "runtime")]
pub(crate) use events::{RawEvent, raw};
pub(crate) use objects::cpp_runtime;
#[cfg(windows)]
pub(crate) use selected::{BELOW_STACK, lowest_committed};
pub(crate) use selected::{
    Locks, Mask, STDERR, asynchronous, block_sigpipe, call_at_exit, commit, commit_stack, exit_value,
    give_back, guard, guard_by_advice, lacks_alternate_stack, lock, lowest_resident, os_thread_id,
    own_thread_name, page_size, pin, reach_below_own_stack, remove_alternate_stack, reserve,
    set_alternate_stack, set_mask, sigpipe_is_pending, take_sigpipe, thread_name, unblock_sigpipe,
    wait_a_little, write_all,
};
#[cfg(feature = "runtime")]
pub(crate) use selected::{is_blocked, mask, thread_number};
