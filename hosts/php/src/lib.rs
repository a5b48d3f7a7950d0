//! The Rust functions that PHP calls; `php_host.h` is their C side.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use upcall::{
    JoinHandle, Panicked, StackChoice, downcall, downcall_on_fiber, enter, entry, spawn, spawn_local, wait,
    yield_now,
};

type Callback = extern "C" fn(*mut c_void) -> c_int;

const FAILED: c_int = -1;
/// What is no failure, but no number either.
const NONE: c_int = -2;

fn or_failed(result: Result<c_int, Panicked>) -> c_int {
    result.unwrap_or(FAILED)
}

/// An upcall that makes a downcall.
#[unsafe(no_mangle)]
pub extern "C" fn host_call(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall(|| function(argument))))
}

/// The same on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn host_call_pooled(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| function(argument))))
}

/// The same on the fiber's stack, where there is a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn host_call_on_fiber(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall_on_fiber(|| function(argument))))
}

/// A downcall whose panic is caught: -2, and the message is copied.
///
/// # Safety
/// `message` is valid for writing `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_catch(
    function: Callback,
    argument: *mut c_void,
    message: *mut c_char,
    size: usize,
) -> c_int {
    or_failed(enter(|| {
        let caught = catch_unwind(AssertUnwindSafe(|| downcall(|| function(argument))));
        caught.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().expect("host_panic's");
            let length = text.len().min(size - 1);
            // SAFETY: the caller's promise; one byte is left for the 0.
            unsafe {
                ptr::copy_nonoverlapping(text.as_ptr().cast(), message, length);
                message.add(length).write(0);
            }
            NONE
        })
    }))
}

/// Panics with `message`.
///
/// # Safety
/// `message` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_panic(message: *const c_char) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller's promise.
        panic!("{}", unsafe { CStr::from_ptr(message) }.to_str().expect("UTF-8"))
    }))
}

type Compare = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

/// What `qsort_r` passes to `compare`.
struct Comparison(Compare, *mut c_void);

extern "C" fn compare(a: *const c_void, b: *const c_void, comparison: *mut c_void) -> c_int {
    or_failed(enter(|| {
        // SAFETY: qsort_r passes elements of an array of `c_int`, and what `host_sort` gave it.
        let (a, b, comparison) = unsafe {
            (a.cast::<c_int>().read(), b.cast::<c_int>().read(), &*comparison.cast::<Comparison>())
        };
        downcall(|| comparison.0(a, b, comparison.1))
    }))
}

/// Sorts by C's `qsort_r`, whose comparisons are upcalls that call `function`.
///
/// # Safety
/// `numbers` has `count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_sort(
    numbers: *mut c_int,
    count: usize,
    function: Compare,
    argument: *mut c_void,
) -> c_int {
    let mut comparison = Comparison(function, argument);
    let comparison = (&raw mut comparison).cast();
    // SAFETY: the caller's promise.
    let sort = || unsafe {
        libc::qsort_r(numbers.cast(), count, size_of::<c_int>(), Some(compare), comparison);
        0
    };
    or_failed(enter(|| downcall(sort)))
}

thread_local! {
    /// What `host_start` started.
    static STARTED: RefCell<Vec<Option<JoinHandle<c_int>>>> = const { RefCell::new(Vec::new()) };
}

/// Waits for a worker's fiber.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_worker(number: c_int) -> c_int {
    or_failed(enter(|| {
        let fiber = spawn(move || {
            yield_now();
            number
        });
        fiber.join().expect("it does not panic")
    }))
}

/// Waits for another thread.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_thread(number: c_int) -> c_int {
    or_failed(enter(|| {
        let (sender, receiver) = async_channel::bounded(1);
        let thread = std::thread::spawn(move || sender.send_blocking(number));
        let received = wait(receiver.recv()).expect("the thread sends");
        thread.join().expect("it does not panic").expect("the receiver is there");
        received
    }))
}

/// Waits for a fiber of this thread's `LocalRuntime`, which waits for a worker's.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_fiber(number: c_int) -> c_int {
    or_failed(enter(|| spawn_local(move || host_wait_for_worker(number)).join().expect("there is a runtime")))
}

/// Waits for some time.
#[unsafe(no_mangle)]
pub extern "C" fn host_sleep(milliseconds: c_uint) -> c_int {
    or_failed(enter(|| {
        upcall::sleep(Duration::from_millis(milliseconds.into()));
        0
    }))
}

/// Starts a fiber of this thread, which waits for a worker's: its name for `host_ended`.
#[unsafe(no_mangle)]
pub extern "C" fn host_start(number: c_int) -> c_int {
    or_failed(enter(|| {
        let fiber = spawn_local(move || host_wait_for_worker(number));
        STARTED.with_borrow_mut(|started| {
            started.push(Some(fiber));
            started.len() as c_int - 1
        })
    }))
}

/// The number of a fiber that has ended, else -2.
#[unsafe(no_mangle)]
pub extern "C" fn host_ended(fiber: c_int) -> c_int {
    or_failed(enter(|| {
        let take =
            |started: &mut Vec<Option<JoinHandle<_>>>| started[fiber as usize].take_if(|it| it.is_finished());
        STARTED.with_borrow_mut(take).map_or(NONE, |ended| ended.join().expect("it does not panic"))
    }))
}

/// How many calls of this thread are open, both ways.
#[unsafe(no_mangle)]
pub extern "C" fn host_open_calls() -> c_int {
    let snapshot = upcall::snapshot();
    snapshot.threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.calls.len() as c_int)
}

/// How many pooled stacks are in use.
#[unsafe(no_mangle)]
pub extern "C" fn host_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}
