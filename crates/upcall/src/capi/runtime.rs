//! The C side of the executors, with the conventions of `capi`.
//!
//! A thread has at most one `LocalRuntime`. So C needs no handle, and cannot use a stale one, or
//! one of another thread.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::time::Duration;

use stackbounds::stack_pointer;

use crate::capi::status;
use crate::crossing::run_c_api;
use crate::fiber::Fibers;
use crate::runtime::{self, LocalRuntime, drop_at_exit};
use crate::thread::ThreadState;

const NO_RUNTIME: &str = "this thread has no runtime of the C side: call local_begin first";
const EXITING: &str = "this thread is exiting";

thread_local! {
    /// The runtime that `local_begin` made for this thread. It ends with the thread.
    static RUNTIME: RefCell<Own> = const { RefCell::new(Own(None)) };
}

/// The runtime of one thread, dropped at the thread's exit.
struct Own(Option<LocalRuntime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            drop_at_exit(runtime);
        }
    }
}

/// Calls `f` with the calling thread's runtime.
pub(super) fn with_runtime<T>(f: impl FnOnce(&LocalRuntime) -> Result<T, String>) -> Option<T> {
    run_c_api(|| {
        // `f` gets an alias, so that the `RefCell` is not borrowed while `f` runs: C may leave `f`
        // by `longjmp`.
        let with = |own: &RefCell<Own>| match own.borrow().0.as_ref().map(LocalRuntime::alias) {
            Some(runtime) => Ok(runtime),
            None => Err(NO_RUNTIME.to_owned()),
        };
        let runtime = RUNTIME.try_with(with).unwrap_or_else(|_| Err(EXITING.to_owned()))?;
        f(&runtime)
    })
}

thread_local! {
    /// SP of the innermost `local_run_ready`; 0 if none is in progress.
    static RUNS: Cell<usize> = const { Cell::new(0) };
}

/// Whether a `local_run_ready` is live on this thread, as seen from `sp`: not returned, and not
/// abandoned.
fn runs(sp: usize) -> bool {
    RUNS.get() != 0 && !ThreadState::current().is_abandoned(RUNS.get(), sp)
}

/// Gives the calling thread a runtime: a run queue of fibers, run by this thread on its own event
/// loop.
///
/// The loop watches the descriptor `local_fd`. When this is readable, the loop calls
/// `local_run_ready`.
///
/// Returns 0. Returns -1 if the thread has a runtime already, or if no file descriptor is
/// available. The runtime lives until `local_end` or the exit of the thread.
pub fn local_begin() -> c_int {
    let begun = run_c_api(|| {
        let runtime = LocalRuntime::new().map_err(|error| error.to_string())?;
        RUNTIME.try_with(|own| own.borrow_mut().0 = Some(runtime)).map_err(|_| EXITING.to_owned())
    });
    status(begun)
}

/// Adds a fiber to the calling thread's runtime: it will call `run(argument)` on a stack of its
/// own.
///
/// The fiber begins in a later `local_run_ready`, or while a Rust function waits on this thread. If
/// its C code calls a Rust function and this waits, the fiber is suspended, and the thread
/// continues with other work.
///
/// The library's author promises in Rust that the library's functions may wait on fibers. A library
/// without this promise exports no function `local_*`, so a program with calls of them does not
/// link. C++ code on fibers makes the same promise for its own `thread_local` variables.
///
/// Returns 0. Returns -1 if `run` is null, or if the thread has no runtime. The caller keeps
/// the ownership of `argument`.
///
/// # Safety
/// `run(argument)` may be called once, on this thread, until `local_end` has returned. If
/// `local_end` ends the fiber during a wait, the waiting Rust function returns its error value to
/// C. Then `run` has to return as well.
pub unsafe fn local_spawn(
    _fibers: Fibers,
    run: Option<unsafe extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> c_int {
    let spawned = with_runtime(|runtime| {
        let run = run.ok_or("local_spawn: run is null")?;
        // SAFETY: the caller guarantees that `run(argument)` may be called once on this thread, and
        // the fiber stays on this thread. `downcall_on_fiber` runs C code on a fiber's own stack.
        let fiber =
            runtime.spawn_local(move || crate::crossing::downcall_on_fiber(|| unsafe { run(argument) }));
        drop(fiber);
        Ok(())
    });
    status(spawned)
}

/// Runs fibers of the calling thread's runtime that are ready, at most `max` of them.
///
/// Each runs until it waits or ends.
///
/// Returns the number of runs. Returns -1 if the thread has no runtime.
pub fn local_run_ready(max: usize) -> c_long {
    let sp = stack_pointer();
    let outer = if runs(sp) { RUNS.get() } else { 0 };
    with_runtime(|runtime| {
        RUNS.set(sp);
        let ran = runtime.run_ready(max);
        RUNS.set(outer);
        Ok(ran)
    })
    .map_or(-1, |ran| c_long::try_from(ran).unwrap_or(c_long::MAX))
}

/// Ends the calling thread's runtime, and its fibers.
///
/// A fiber in the middle of a wait is ended there: the waiting Rust function returns to C its error
/// value, as after a panic.
///
/// Returns 0. Returns -1 if the thread has no runtime, or if the call comes from inside
/// `local_run_ready`.
pub fn local_end() -> c_int {
    let sp = stack_pointer();
    let ended = run_c_api(|| {
        if runs(sp) {
            return Err("local_end was called from inside local_run_ready".to_owned());
        }
        let take = |own: &RefCell<Own>| own.borrow_mut().0.take().ok_or(NO_RUNTIME);
        let taken = RUNTIME.try_with(take).unwrap_or(Err(EXITING));
        taken.map(drop).map_err(str::to_owned)
    });
    status(ended)
}

/// Ends upcall's worker threads; their fibers and tasks have `milliseconds` to end.
///
/// It is for programs that want no other thread to run during their exit. From the call on, no
/// fiber or task can be given to a worker. Everything without workers continues to work. Tasks that
/// run out of time are ended, as `UPCALL_TASK_LOST`.
///
/// Returns 0. Returns -1 if some fibers or blocking calls have not ended by then; the message names
/// them. In this case the function may be called again.
pub fn shutdown(milliseconds: c_uint) -> c_int {
    let timeout = Duration::from_millis(milliseconds.into());
    let ended = run_c_api(|| runtime::shutdown(timeout).map_err(|unfinished| unfinished.to_string()));
    status(ended)
}

/// Adds the functions of the feature `runtime` to `c_api!`: first those of every library, then
/// those of libraries with fibers.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_api_of_runtime {
    ($upcall:tt { $($functions:tt)* } $($arguments:tt)*) => {
        $crate::__c_api_of_system! {
            $upcall
            {
                $($functions)*
                fn shutdown(milliseconds: ::core::ffi::c_uint) -> ::core::ffi::c_int;
                fn task_wait(task: *mut $crate::Task, milliseconds: ::core::ffi::c_int) -> ::core::ffi::c_int;
                fn task_status(task: *mut $crate::Task) -> ::core::ffi::c_int;
                fn task_cancel(task: *mut $crate::Task) -> ::core::ffi::c_int;
                fn task_free(task: *mut $crate::Task, cancel: ::core::ffi::c_int) -> ::core::ffi::c_int;
                fn task_next(task: *mut $crate::Task, milliseconds: ::core::ffi::c_int) -> ::core::ffi::c_int;
            }
            {
                fn local_begin() -> ::core::ffi::c_int;
                unsafe fn local_spawn(
                    fibers: _,
                    run: ::core::option::Option<unsafe extern "C" fn(*mut ::core::ffi::c_void)>,
                    argument: *mut ::core::ffi::c_void,
                ) -> ::core::ffi::c_int;
                fn local_run_ready(max: usize) -> ::core::ffi::c_long;
                fn local_end() -> ::core::ffi::c_int;
                unsafe fn coroutines_install(
                    fibers: _,
                    flags: ::core::ffi::c_uint,
                    data: *mut ::core::ffi::c_void,
                    current: ::core::option::Option<
                        unsafe extern "C-unwind" fn(*mut ::core::ffi::c_void) -> *mut ::core::ffi::c_void,
                    >,
                    suspend: ::core::option::Option<
                        unsafe extern "C-unwind" fn(
                            *mut ::core::ffi::c_void,
                            *mut ::core::ffi::c_void,
                        ) -> ::core::ffi::c_int,
                    >,
                    resume: ::core::option::Option<
                        unsafe extern "C-unwind" fn(*mut ::core::ffi::c_void, *mut ::core::ffi::c_void),
                    >,
                ) -> ::core::ffi::c_int;
                fn coroutines_uninstall(flags: ::core::ffi::c_uint) -> ::core::ffi::c_int;
                unsafe fn coroutines_next_ready(coroutine: *mut *mut ::core::ffi::c_void) -> ::core::ffi::c_int;
                fn coroutines_run_ready(max: usize) -> ::core::ffi::c_long;
            }
            $($arguments)*
        }
    };
}
