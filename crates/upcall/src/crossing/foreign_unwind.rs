//! Exceptions of other languages: none may pass through Rust code.
//!
//! They reach Rust through functions declared `extern "C-unwind"`. If a C function is declared
//! `extern "C"`, the compiler expects no exception from it. If one comes nevertheless, its
//! language's runtime aborts the process (`std::terminate` in C++), or it passes through optimised
//! code as `longjmp` does.

use std::marker::PhantomData;
use std::mem::forget;
use std::thread::panicking;
#[cfg(feature = "runtime")]
use std::time::Duration;

use crate::function::Function;
use crate::messages::fatal;
#[cfg(feature = "runtime")]
use crate::thread::exceptions;

/// Runs `f`. If an exception other than a panic reaches it, aborts with the name of `f`'s function.
#[inline(always)]
pub(super) fn abort_on_foreign_unwind<R, F: FnOnce() -> R>(f: F) -> R {
    let passes = Passes::<F>(PhantomData);
    let value = f();
    forget(passes);
    value
}

/// Runs `f` on a thread of ours or of the host. If `f` ends the thread, the thread sleeps for ever.
///
/// `pthread_exit` unwinds the thread's frames with glibc, and Rust's frames must not be unwound.
/// CPython before 3.14 calls it on threads that want the GIL while the interpreter ends. Later
/// versions have them sleep, as this does.
#[cfg(feature = "runtime")]
pub(crate) fn sleep_if_thread_ends<R>(f: impl FnOnce() -> R) -> R {
    struct ThreadEnds;

    impl Drop for ThreadEnds {
        fn drop(&mut self) {
            while !panicking() && !exceptions::is_in_flight() {
                std::thread::sleep(Duration::MAX);
            }
        }
    }

    let ends = ThreadEnds;
    let value = f();
    forget(ends);
    value
}

/// Dropped only if something unwinds through its frame.
struct Passes<F>(PhantomData<fn(F)>);

impl<F> Drop for Passes<F> {
    #[inline]
    fn drop(&mut self) {
        if !panicking() {
            refuse(Function::of::<F>());
        }
    }
}

#[cold]
#[inline(never)]
fn refuse(function: Function) -> ! {
    fatal(format_args!(
        "an exception that is no Rust panic (of C++, or the end of a thread by pthread_exit or its cancellation) reached the Rust code of {function}: \
         it must be caught in the code that Rust called"
    ))
}
