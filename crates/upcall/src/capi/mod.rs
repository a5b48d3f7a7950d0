//! The C side: the functions exported by [`c_api!`](crate::c_api).
//!
//! Conventions: on failure, a function writes nothing. If there is a reason to tell, it returns -1
//! and keeps a message for [`last_message`].
//!
//! Nothing here is a C symbol. The names belong to the final library, and its author chooses their
//! prefix. A program may contain several libraries, each with a copy of upcall. If their symbols
//! had equal names, the linker would bind all calls to one copy. So messages and comments omit the
//! prefix.
//!
//! `cargo xtask header` generates `include/upcall.h` from the files of this folder. The doc
//! comments of their public functions become its comments, so they address C programmers.

#[cfg(feature = "runtime")]
pub(crate) mod coroutines;
#[cfg(feature = "runtime")]
crate::sys::with_descriptors! {
    pub(crate) mod descriptors;
}
#[cfg(feature = "runtime")]
crate::sys::with_event_objects! {
    pub(crate) mod event_objects;
}
pub(crate) mod dump;
pub(crate) mod memory;
#[cfg(feature = "runtime")]
pub(crate) mod runtime;
pub(crate) mod stacks;
#[cfg(feature = "runtime")]
pub(crate) mod task;

use std::ffi::{c_char, c_int};
use std::ptr;

use stackbounds::stack_pointer;

use crate::crossing::{InUse, attach, detach, keep_message, run_c_api, with_message};
use crate::stack::service;
use crate::thread::ThreadState;

/// The result of a function without any other: 0 if it succeeded, -1 if it failed.
pub(crate) fn status<T>(done: Option<T>) -> c_int {
    if done.is_some() { 0 } else { -1 }
}

/// Copies the last message into `buffer`.
///
/// The message tells why the last call failed on this thread. It is the error or the panic of a
/// Rust function called by C, which then returned its declared error value; the reason why such a
/// function was not run; or the reason why a function of this header returned -1. If a signal
/// handler's call was not run for want of a reserve (`thread_attach`), there is no message of it.
/// As with `snprintf`, the copy is truncated to `size` bytes, including a terminating 0. `buffer`
/// may be null if `size` is 0.
///
/// Each fiber has a message of its own for C code on its stack. So failures of other fibers do not
/// replace it while the fiber waits.
///
/// Returns the length of the whole message in bytes, without the terminating 0. Returns -1 if there
/// is no message. A message stays until the next one, until the thread is detached, or until the
/// fiber ends.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes.
pub unsafe fn last_message(buffer: *mut c_char, size: usize) -> c_int {
    let copy = |message: &str| {
        if let (Some(fits), false) = (size.checked_sub(1), buffer.is_null()) {
            let len = message.len().min(fits);
            // SAFETY: the caller guarantees that `size` bytes of `buffer` may be written, and `len
            // + 1 <= size`. The message is memory of upcall, so the caller's buffer does not
            // overlap it.
            unsafe {
                ptr::copy_nonoverlapping(message.as_ptr().cast(), buffer, len);
                buffer.add(len).write(0);
            }
        }
        c_int::try_from(message.len()).unwrap_or(c_int::MAX)
    };
    with_message(ThreadState::current(), stack_pointer(), copy).unwrap_or(-1)
}

/// Attaches the calling thread now, before its first call of a Rust function.
///
/// This also reserves a stack for calls of Rust functions from the thread's signal handlers.
/// Handlers on an alternate stack must not allocate: without the reserve, such calls fail. Threads
/// without signal handlers need not call this.
///
/// Returns 0, also if the thread is attached already. Returns -1 if there is not enough memory. The
/// thread stays attached until `thread_detach` or its exit.
pub fn thread_attach() -> c_int {
    let attached = run_c_api(|| attach().map_err(|refusal| refusal.to_string()));
    status(attached)
}

/// Detaches the calling thread now, before its exit.
///
/// This frees everything kept for the thread since it was attached, by its first call of a Rust
/// function or by `thread_attach`; also its last message. If the thread calls a Rust function
/// later, it is attached again.
///
/// Returns 0, also if the thread is not attached. Returns -1 and changes nothing if something of
/// the thread is in use; the message names it:
/// - a call between C and Rust that has not returned, in either direction, on any coroutine. A call
///   abandoned by `longjmp` may count as one.
/// - a fiber, or the runtime of `local_begin`.
///
/// Signal handlers and upcall's own threads cannot be detached: there, the function returns -1.
pub fn thread_detach() -> c_int {
    let (detached, sp) = (detach(), stack_pointer());
    match detached {
        // A signal handler must not allocate, so it gets no message.
        Ok(()) | Err(InUse::SignalHandler) => {}
        Err(user) => service::run(|| {
            let message = format!("thread_detach: {user}");
            keep_message(ThreadState::current(), sp, &message);
        }),
    }
    status(detached.ok())
}

/// Returns the version of upcall in the library, for example `"0.1.0"`.
///
/// `UPCALL_VERSION` is the version of this header. The string is static. The function may be called
/// from anywhere, also from signal handlers.
pub fn version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Exports upcall's C functions from this library, under a prefix of its own.
///
/// Without this macro, a library exports none of them. Write it once, in the crate linked into C
/// programs:
///
/// ```
/// # mod library {
/// upcall::c_api!(geo);
/// # }
/// ```
///
/// C code then has `geo_last_message`, `geo_stack_register`, `geo_dump` and the others of
/// [`c`](crate::c). `upcall.h` declares them after `#define UPCALL_PREFIX geo_`; the text of this
/// header is [`C_HEADER`](crate::C_HEADER). `c_api!()` stands for `c_api!(upcall)`.
///
/// Libraries linked into one program need different prefixes. If one library uses the same prefix
/// twice, a symbol is defined twice, and the compiler or the linker reports an error. The same goes
/// for the library's dependencies, so only the final library should use this macro.
///
/// # Fibers
/// With `fibers`, the macro takes the library's [`Fibers`](crate::Fibers), and adds the functions
/// `local_*`. With these, C runs fibers on an event loop of its own:
///
/// ```
/// # mod library {
/// // SAFETY: no exported function borrows a thread-local across a wait, and no thread-local's
/// // initialiser waits.
/// const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// upcall::c_api!(map, fibers = FIBERS);
/// # }
/// ```
///
/// The promise covers the library's exported functions, if C calls them on a fiber.
#[macro_export]
macro_rules! c_api {
    ($($arguments:tt)*) => {
        $crate::__c_api_of_runtime! {
            [$crate]
            {
                unsafe fn last_message(buffer: *mut ::core::ffi::c_char, size: usize) -> ::core::ffi::c_int;
                fn thread_attach() -> ::core::ffi::c_int;
                fn thread_detach() -> ::core::ffi::c_int;
                fn version() -> *const ::core::ffi::c_char;
                unsafe fn dump(fd: ::core::ffi::c_int) -> ::core::ffi::c_int;
                unsafe fn memory_free(memory: *mut ::core::ffi::c_void) -> ::core::ffi::c_int;
                unsafe fn stack_register(
                    low: *mut ::core::ffi::c_void,
                    size: usize,
                    name: *const ::core::ffi::c_char,
                ) -> ::core::ffi::c_int;
                fn stack_unregister(low: *mut ::core::ffi::c_void) -> ::core::ffi::c_int;
                fn stack_remaining() -> isize;
                fn report_install() -> ::core::ffi::c_int;
            }
            $($arguments)*
        }
    };
}

/// Without the feature `runtime`, `c_api!` has no functions to add.
#[cfg(not(feature = "runtime"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __c_api_of_runtime {
    ($upcall:tt $functions:tt $($arguments:tt)*) => {
        $crate::__private::c_api! { $upcall $functions {} $($arguments)* }
    };
}
