//! Asynchronous functions, with every kind of end, and values owned by C.

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::future::{Future, pending};
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use upcall::{Completion, CompletionFn, Task, timer};

/// Starts an operation for C.
///
/// # Safety
/// Any thread may call `done(data, …)`, once.
unsafe fn start(
    operation: impl Future<Output = io::Result<c_long>> + Send + 'static,
    done: Option<CompletionFn>,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller guarantees that any thread may call it.
    let done = unsafe { Completion::c(done, data) };
    upcall::start(operation, done).unwrap()
}

macro_rules! lookups {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $operation:expr;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// Any thread may call `done(data, …)`, once.
        #[upcall::export(on_panic = null_mut())]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($argument: $type,)*
            done: Option<CompletionFn>,
            data: *mut c_void,
        ) -> *mut Task {
            // SAFETY: the caller's guarantee is the same.
            unsafe { start(async move { $operation }, done, data) }
        }
    )* };
}

lookups! {
    /// Ready at once.
    geo_lookup_now(value: c_long) Ok(value);

    /// Ready after some milliseconds.
    geo_lookup_later(value: c_long, milliseconds: c_int) {
        timer(Duration::from_millis(milliseconds as u64)).await;
        Ok(value)
    };

    /// Fails: after some milliseconds, or at once if they are 0.
    geo_lookup_failing(milliseconds: c_int) {
        if milliseconds > 0 {
            timer(Duration::from_millis(milliseconds as u64)).await;
        }
        Err(io::Error::other("no such place"))
    };

    /// Panics after a millisecond.
    geo_lookup_panicking() {
        timer(Duration::from_millis(1)).await;
        std::panic::resume_unwind(Box::new("lost the map"))
    };

    /// Never ends.
    geo_lookup_never() pending().await;
}

/// Starts nothing: returns null, with a message.
#[upcall::export(on_panic = null_mut())]
#[unsafe(no_mangle)]
pub extern "C" fn geo_lookup_refused(_: Option<CompletionFn>, _: *mut c_void) -> *mut Task {
    std::panic::resume_unwind(Box::new("no lookups today"))
}

/// Writes the result of a lookup to `value`. Returns 0; -1 if the task has none, with a message.
///
/// # Safety
/// `value` is valid for writing.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn geo_lookup_result(task: *mut Task, value: *mut c_long) -> c_int {
    let found = Task::take::<c_long>(task)
        .unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error.to_string())));
    // SAFETY: the caller guarantees that `value` is valid for writing.
    unsafe { value.write(found) };
    0
}

/// Returns the number of running tasks.
#[unsafe(no_mangle)]
pub extern "C" fn geo_running() -> c_int {
    Task::running() as c_int
}

/// A value owned by C.
pub struct Place(c_long);

static PLACES: AtomicI32 = AtomicI32::new(0);

/// Makes a place, to be freed by `geo_place_free`.
#[unsafe(no_mangle)]
pub extern "C" fn geo_place_new(value: c_long) -> *mut Place {
    PLACES.fetch_add(1, SeqCst);
    Box::into_raw(Box::new(Place(value)))
}

/// Returns the name of a place, to be freed by `geo_text_free`.
///
/// # Safety
/// `place` is one of `geo_place_new`, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn geo_place_name(place: *const Place) -> *mut c_char {
    PLACES.fetch_add(1, SeqCst);
    // SAFETY: the caller guarantees a place.
    let value = unsafe { &*place }.0;
    CString::new(format!("place {value}")).expect("it contains no 0").into_raw()
}

/// Frees a place.
///
/// # Safety
/// `place` is one of `geo_place_new`, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn geo_place_free(place: *mut Place) {
    PLACES.fetch_sub(1, SeqCst);
    // SAFETY: the caller guarantees that nobody else uses the place.
    drop(unsafe { Box::from_raw(place) });
}

/// Frees a text.
///
/// # Safety
/// `text` is one of this library's, and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn geo_text_free(text: *mut c_char) {
    PLACES.fetch_sub(1, SeqCst);
    // SAFETY: the caller guarantees that nobody else uses the text.
    drop(unsafe { CString::from_raw(text) });
}

/// Returns the number of places and texts not freed.
#[unsafe(no_mangle)]
pub extern "C" fn geo_alive() -> c_int {
    PLACES.load(SeqCst)
}
