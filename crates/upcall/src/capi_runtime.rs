//! The C side of the executors; its conventions are those of `capi`.
//!
//! A thread has one `LocalRuntime` at most, so there is no handle to be stale, or used on another thread.

use std::cell::RefCell;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::capi::status;
use crate::crossing::checked;
use crate::runtime::{LocalRuntime, drop_at_exit, shutdown};

const NO_RUNTIME: &str = "this thread has no runtime of the C side: call upcall_local_begin first";
const EXITING: &str = "this thread is exiting";

thread_local! {
    /// What `upcall_local_begin` made for this thread, which ends with it.
    static RUNTIME: RefCell<Own> = const { RefCell::new(Own(None)) };
}

/// A thread's own, dropped with the thread.
struct Own(Option<LocalRuntime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            drop_at_exit(runtime);
        }
    }
}

/// Calls `f` with the thread's runtime.
fn with_runtime<T>(f: impl FnOnce(&LocalRuntime) -> Result<T, String>) -> Option<T> {
    checked(|| {
        let with = |own: &RefCell<Own>| match own.borrow().0.as_ref() {
            Some(runtime) => f(runtime),
            None => Err(NO_RUNTIME.to_owned()),
        };
        RUNTIME.try_with(with).unwrap_or_else(|_| Err(EXITING.to_owned()))
    })
}

/// Gives the calling thread a runtime: a queue of fibers, which it runs itself, on its own event loop.
/// The loop watches the descriptor `upcall_local_fd`, and calls `upcall_local_run_ready` when that is
/// readable.
///
/// Returns 0, or -1 if the thread has one already or there is no file descriptor. It ends with
/// `upcall_local_end`, or with the thread.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_local_begin() -> c_int {
    let begun = checked(|| {
        let runtime = LocalRuntime::new().map_err(|error| error.to_string())?;
        RUNTIME.try_with(|own| own.borrow_mut().0 = Some(runtime)).map_err(|_| EXITING.to_owned())
    });
    status(begun)
}

/// Adds a fiber to the calling thread's runtime that will call `run(argument)` on a stack of its own, in
/// a later `upcall_local_run_ready`, or while a Rust function waits on this thread. C code there may
/// call Rust functions that wait: the fiber is suspended, and the thread goes on.
///
/// Returns 0, or -1 if `run` is null or the thread has no runtime. `argument` stays the caller's.
///
/// # Safety
/// `run(argument)` may be called, once, on this thread, until `upcall_local_end` has returned. If the
/// fiber is ended there while it waits, `run` has to return as after an error of the function that
/// waited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcall_local_spawn(
    run: Option<unsafe extern "C" fn(*mut c_void)>,
    argument: *mut c_void,
) -> c_int {
    let spawned = with_runtime(|runtime| {
        let run = run.ok_or("upcall_local_spawn: run is null")?;
        // SAFETY: the caller's promise. C code on a fiber's own stack is what `downcall_on_fiber` is for.
        let fiber =
            runtime.spawn_local(move || crate::crossing::downcall_on_fiber(|| unsafe { run(argument) }));
        drop(fiber);
        Ok(())
    });
    status(spawned)
}

/// Runs fibers of the calling thread's runtime that are ready, each until it waits or ends, `max` of them
/// at most.
///
/// Returns how many it ran, or -1 if the thread has no runtime.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_local_run_ready(max: usize) -> c_long {
    with_runtime(|runtime| Ok(runtime.run_ready(max)))
        .map_or(-1, |ran| c_long::try_from(ran).unwrap_or(c_long::MAX))
}

/// The file descriptor that is readable (`POLLIN`, level-triggered) whenever a fiber of the calling
/// thread's runtime can run. To be polled only: not read, not closed. It is good until
/// `upcall_local_end`.
///
/// Returns -1 if the thread has no runtime.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_local_fd() -> c_int {
    with_runtime(|runtime| Ok(runtime.fd().as_raw_fd())).unwrap_or(-1)
}

/// Ends the calling thread's runtime: fibers that have not ended are ended where they wait, the function
/// that waits returning to C what it declares for a panic.
///
/// Returns 0, or -1 if the thread has none, or if it is called from inside `upcall_local_run_ready`.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_local_end() -> c_int {
    let ended = checked(|| {
        let take = |own: &RefCell<Own>| match own.try_borrow_mut() {
            Ok(mut own) => own.0.take().ok_or(NO_RUNTIME),
            Err(_) => Err("upcall_local_end was called from inside upcall_local_run_ready"),
        };
        let taken = RUNTIME.try_with(take).unwrap_or(Err(EXITING));
        taken.map(drop).map_err(str::to_owned)
    });
    status(ended)
}

/// Ends upcall's worker threads, giving their fibers `milliseconds` to end. For programs that want
/// nothing to run while they exit. No fiber can be given to a worker any more; all that needs none works
/// as before.
///
/// Returns 0, or -1 if some have not ended by then; the message says which. It may be called again then.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_shutdown(milliseconds: c_uint) -> c_int {
    let timeout = Duration::from_millis(milliseconds.into());
    let ended = checked(|| shutdown(timeout).map_err(|unfinished| unfinished.to_string()));
    status(ended)
}
