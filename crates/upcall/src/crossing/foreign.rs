//! Exceptions of other languages, which must not pass through Rust code.
//!
//! They come out of functions that Rust declares `extern "C-unwind"`. Where C is declared `extern "C"`, the compiler counts on none; should one come, its
//! language's runtime stops the process (`std::terminate` in C++), or it passes through optimised code as `longjmp` does.

use std::marker::PhantomData;
use std::mem::forget;
use std::thread::panicking;

use crate::function::Function;
use crate::quiet::fatal;

/// Runs `f`. An exception that is no panic stops the process, by the name of the function that it reached.
#[inline(always)]
pub(super) fn refusing<R, F: FnOnce() -> R>(f: F) -> R {
    let passes = Passes::<F>(PhantomData);
    let value = f();
    forget(passes);
    value
}

/// Dropped when something passes.
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
