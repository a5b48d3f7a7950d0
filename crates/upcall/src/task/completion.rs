//! Completions: the one call that tells of a task's end.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::sync::Arc;

use super::cell::TaskCell;
use super::{Task, TaskStatus};
use crate::crossing::{downcall_on_fiber, sleep_if_thread_ends};
use crate::drop_guards::call_ignoring_panics;
use crate::runtime::LocalRuntimeHandle;

/// A C function to be called at the end of a task: `data`, the task, and its status.
pub type CompletionFn = unsafe extern "C-unwind" fn(data: *mut c_void, task: *mut Task, status: c_int);

/// The call that tells of a task's end: [`start`](crate::start) takes it.
///
/// A completion is called exactly once, when the operation's future has been dropped. This holds
/// whatever ends the operation: a value, an error, a panic, a cancellation, a deadline, a shutdown.
/// [`TaskStatus`] has the list.
///
/// | | who calls it |
/// |---|---|
/// | [`none`](Self::none) | nobody: C polls or waits |
/// | [`c`](Self::c), [`call`](Self::call) | the thread that ends the operation: a worker, a thread of tokio, or the caller of `start` |
/// | [`on`](Self::on) | the thread of a [`LocalRuntime`](crate::LocalRuntime), in its `run_ready` |
///
/// If the operation is ready at its first poll, its completion is called inside `start`, before C
/// has the handle that `start` returns. The completion gets the same handle as an argument. With
/// [`TaskBuilder::later`](crate::TaskBuilder::later) or `on`, nothing is called inside `start`.
///
/// A completion may do anything: wait, start the next task, free its own task. It holds up its
/// thread meanwhile, as any code on a worker does. If it panics, the panic ends there, once the
/// panic hook has reported it.
///
/// In the child of a fork, a task that only the parent runs has ended as
/// [`Lost`](TaskStatus::Lost). Its completion is called in the child at the first use of its handle
/// there.
pub struct Completion {
    pub(super) call: Call,
    pub(super) on: Option<Box<LocalRuntimeHandle>>,
}

/// The function to be called.
pub(super) enum Call {
    Nothing,
    C { function: CompletionFn, data: *mut c_void },
    Rust(Box<dyn FnOnce(*mut Task, TaskStatus) + Send>),
}

// SAFETY: a closure is `Send`. Whoever made a completion of C's guarantees that any thread may call
// its function.
unsafe impl Send for Call {}

impl Completion {
    /// No call: C asks by `task_status`, waits by `task_wait`, or watches the descriptor `task_fd`.
    pub const fn none() -> Self {
        Self { call: Call::Nothing, on: None }
    }

    /// Calls the C function `function(data, task, status)`. If `function` is null, nothing.
    ///
    /// C runs on its own system stack, as in a [`downcall`](crate::downcall). On the thread of a
    /// [`LocalRuntime`](crate::LocalRuntime), it runs on a fiber, so its waits suspend.
    ///
    /// If `function` ends its thread (`pthread_exit`), the thread sleeps for ever instead. CPython
    /// before 3.14 ends threads so that want to call Python while the interpreter ends. A C++
    /// exception that leaves `function` aborts the process.
    ///
    /// ```
    /// use std::ffi::{CStr, c_char, c_void};
    /// use upcall::{Completion, CompletionFn, Task};
    ///
    /// /// Looks up the length of `name`, and calls `done(data, task, status)` once.
    /// ///
    /// /// # Safety
    /// /// `name` is a C string. Any thread may call `done(data, …)`, once.
    /// #[upcall::export(on_panic = std::ptr::null_mut())]
    /// #[unsafe(no_mangle)]
    /// pub unsafe extern "C" fn geo_lookup(
    ///     name: *const c_char,
    ///     done: Option<CompletionFn>,
    ///     data: *mut c_void,
    /// ) -> *mut Task {
    ///     // SAFETY: the caller guarantees a C string.
    ///     let name = unsafe { CStr::from_ptr(name) }.to_owned();
    ///     // SAFETY: the caller guarantees that any thread may call it.
    ///     let done = unsafe { Completion::c(done, data) };
    ///     upcall::start(async move { Ok::<_, std::io::Error>(name.count_bytes()) }, done).unwrap()
    /// }
    /// ```
    ///
    /// # Safety
    /// Any thread may call `function(data, …)`, once, at any time until then.
    pub unsafe fn c(function: Option<CompletionFn>, data: *mut c_void) -> Self {
        let call = function.map_or(Call::Nothing, |function| Call::C { function, data });
        Self { call, on: None }
    }

    /// Calls a closure with the task and its status.
    pub fn call(f: impl FnOnce(*mut Task, TaskStatus) + Send + 'static) -> Self {
        Self { call: Call::Rust(Box::new(f)), on: None }
    }

    /// Has the thread of `runtime` make the call, in a fiber of its own.
    ///
    /// If the runtime has ended by then, the thread that ends the operation makes the call. If it
    /// ends with the call still to be made, the call is made at its end.
    pub fn on(self, runtime: &LocalRuntimeHandle) -> Self {
        Self { on: Some(Box::new(runtime.clone())), ..self }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = match self.call {
            Call::Nothing => "none",
            Call::C { .. } => "a C function",
            Call::Rust(_) => "a closure",
        };
        out.debug_struct("Completion").field("call", &call).field("on", &self.on).finish()
    }
}

impl Call {
    /// Makes the call. Its panics end here.
    #[inline]
    pub fn make(self, task: *mut Task, status: TaskStatus) {
        match self {
            Self::Nothing => {}
            Self::C { function, data } => call_ignoring_panics(|| {
                // SAFETY: whoever made the completion guarantees that any thread may make this
                // call, once. A `Call` is made once.
                let call = || unsafe { function(data, task, status as c_int) };
                downcall_on_fiber(|| sleep_if_thread_ends(call));
            }),
            Self::Rust(f) => call_ignoring_panics(|| f(task, status)),
        }
    }
}

/// Has the runtime's thread call the completion of `cell`, or whoever drops the call.
pub(super) fn send(runtime: &LocalRuntimeHandle, cell: Arc<TaskCell>) {
    struct ToComplete(Arc<TaskCell>);

    impl Drop for ToComplete {
        fn drop(&mut self) {
            self.0.complete();
        }
    }

    let call = ToComplete(cell);
    drop(runtime.spawn(move || drop(call)));
}
