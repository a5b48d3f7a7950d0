//! Tasks of upcall, for C. Two libraries are built from this file: with upcall's own workers, and
//! with its feature `tokio`.

use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use benchtasks_common::{ready, waits, yields};
use upcall::{Completion, CompletionFn, Task, TaskBuilder};

upcall::c_api!(tasks);

/// What an author writes around an operation that cannot fail.
macro_rules! fallible {
    ($operation:ident) => {
        async { Ok::<_, Infallible>($operation().await) }
    };
}

/// Starts the operation named by `kind`, of `c/tasks.h`. Its end calls `done(data, …)`.
///
/// # Safety
/// Any thread may call `done(data, …)`, once.
#[upcall::export(on_panic = null_mut())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tasks_start(
    kind: c_int,
    done: Option<CompletionFn>,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller guarantees the same.
    let done = unsafe { Completion::c(done, data) };
    let started = match kind {
        0 => upcall::start(fallible!(ready), done),
        1 => upcall::start(fallible!(yields), done),
        2 => TaskBuilder::new().later().start(fallible!(ready), done),
        _ => upcall::start(fallible!(waits), done),
    };
    started.unwrap()
}

/// Takes the value of a task.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn tasks_value(task: *mut Task) -> i64 {
    Task::take(task).unwrap()
}
