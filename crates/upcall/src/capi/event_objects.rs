//! Event objects that tell an event loop.

use std::ffi::c_void;
use std::ptr;

use crate::capi::runtime::with_runtime;
use crate::crossing::run_c_api;
use crate::fiber::coroutines;
use crate::sys::raw;
use crate::task::Task;

/// Returns an event object, a `HANDLE`, that tells an event loop of a task.
///
/// It is signalled when the task has ended, or has a part to be taken. It is reset by hand, not by
/// a wait. Only wait for it: do not reset it, and do not close it. It is valid until the task is
/// freed.
///
/// Returns null if `task` is no task, or if the system gives no event object.
pub fn task_event(task: *mut Task) -> *mut c_void {
    let event = || Task::event(task).map_err(|error| format!("task_event: {error}"));
    run_c_api(event).unwrap_or(ptr::null_mut())
}

/// Returns the event object, a `HANDLE`, that tells an event loop when a fiber of the calling
/// thread is ready.
///
/// While a fiber of the thread's runtime can run, the object is signalled. It is reset by hand, not
/// by a wait. Only wait for it: do not reset it, and do not close it. It is valid until
/// `local_end`.
///
/// Returns null if the thread has no runtime.
pub fn local_event() -> *mut c_void {
    with_runtime(|runtime| Ok(raw(runtime.event().event()))).unwrap_or(ptr::null_mut())
}

/// Returns the event object, a `HANDLE`, that tells an event loop when a coroutine of the calling
/// thread can go on.
///
/// While one can, the object is signalled. `coroutines_next_ready` ends that when it returns 0. It
/// may be signalled in vain. Only wait for it: do not reset it, and do not close it. It is valid
/// until the thread's exit.
///
/// Returns null if the system gives no event object.
pub fn coroutines_event() -> *mut c_void {
    let event = || coroutines::event().map_err(|error| format!("coroutines_event: {error}"));
    run_c_api(|| event().map(raw)).unwrap_or(ptr::null_mut())
}
