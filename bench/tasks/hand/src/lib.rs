//! Asynchronous operations for C as written by hand today: tokio, a C callback, an abort handle.

use std::ffi::{c_int, c_void};
use std::future::Future;
use std::panic::catch_unwind;
use std::ptr::null_mut;
use std::sync::LazyLock;

use benchtasks_common::{ready, waits, yields};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

type Callback = unsafe extern "C" fn(data: *mut c_void, status: c_int, value: i64);

/// The call to be made at the end. Its drop tells of a cancellation or a panic.
struct Done {
    callback: Option<Callback>,
    data: *mut c_void,
}

// SAFETY: the caller of `hand_start` guarantees that any thread may make the call.
unsafe impl Send for Done {}

impl Done {
    fn call(&mut self, status: c_int, value: i64) {
        if let Some(callback) = self.callback.take() {
            // SAFETY: the caller of `hand_start` guarantees that any thread may make the call,
            // once.
            unsafe { callback(self.data, status, value) };
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.call(if std::thread::panicking() { 3 } else { 4 }, 0);
    }
}

fn start<F>(operation: impl FnOnce() -> F + Send + 'static, mut done: Done) -> AbortHandle
where
    F: Future<Output = i64> + Send + 'static,
{
    let task = RUNTIME.spawn(async move {
        let value = operation().await;
        done.call(1, value);
    });
    task.abort_handle()
}

/// Starts the operation named by `kind`, of `c/tasks.h`. Its end calls `callback(data, …)`.
///
/// # Safety
/// Any thread may call `callback(data, …)`, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hand_start(kind: c_int, callback: Callback, data: *mut c_void) -> *mut AbortHandle {
    let done = Done { callback: Some(callback), data };
    let done = std::panic::AssertUnwindSafe(done);
    let started = catch_unwind(|| {
        let done = { done }.0;
        match kind {
            0 | 2 => start(ready, done),
            1 => start(yields, done),
            _ => start(waits, done),
        }
    });
    started.map_or(null_mut(), |handle| Box::into_raw(Box::new(handle)))
}

/// Cancels an operation.
///
/// # Safety
/// `handle` is from `hand_start`, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hand_cancel(handle: *const AbortHandle) {
    // SAFETY: the caller guarantees a handle.
    let _ = catch_unwind(|| unsafe { (*handle).abort() });
}

/// Frees the handle of an operation.
///
/// # Safety
/// `handle` is from `hand_start`, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hand_free(handle: *mut AbortHandle) {
    // SAFETY: the caller guarantees a handle from `Box::into_raw`.
    let _ = catch_unwind(|| drop(unsafe { Box::from_raw(handle) }));
}

/// Spawns an operation that waits, and nothing else: tokio's own memory.
#[unsafe(no_mangle)]
pub extern "C" fn hand_spawn() {
    drop(RUNTIME.spawn(waits()));
}
