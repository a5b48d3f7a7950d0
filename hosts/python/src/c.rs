//! The functions of `python_host.h`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use async_channel::{Receiver, Sender};
use upcall::{Panicked, StackChoice, downcall, enter, entry, spawn_local, wait};

use crate::{open_calls, wait_for_worker};

type Callback = extern "C" fn(*mut c_void) -> c_int;
type Compare = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;

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

/// The same from a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn host_call_pooled(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| function(argument))))
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
    // On the heap: greenlets that copy the stack leave it where it is.
    let mut comparison = Box::new(Comparison(function, argument));
    let comparison = (&raw mut *comparison).cast();
    // SAFETY: the caller's promise.
    let sort = || unsafe {
        libc::qsort_r(numbers.cast(), count, size_of::<c_int>(), Some(compare), comparison);
        0
    };
    or_failed(enter(|| downcall(sort)))
}

/// Waits for a worker's fiber.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_worker(number: c_int) -> c_int {
    or_failed(enter(|| wait_for_worker(number)))
}

/// A channel of numbers.
pub struct HostChannel(Sender<c_int>, Receiver<c_int>);

/// A channel that holds any number of numbers.
#[unsafe(no_mangle)]
pub extern "C" fn host_channel_new() -> Box<HostChannel> {
    let (sender, receiver) = async_channel::unbounded();
    Box::new(HostChannel(sender, receiver))
}

/// Frees it.
#[unsafe(no_mangle)]
pub extern "C" fn host_channel_free(_channel: Box<HostChannel>) {}

/// Sends.
#[unsafe(no_mangle)]
pub extern "C" fn host_send(channel: &HostChannel, number: c_int) -> c_int {
    or_failed(enter(|| wait(channel.0.send(number)).map_or(FAILED, |()| 0)))
}

/// Waits for a number.
#[unsafe(no_mangle)]
pub extern "C" fn host_receive(channel: &HostChannel) -> c_int {
    or_failed(enter(|| wait(channel.1.recv()).expect("the channel is open")))
}

/// Starts a fiber of this thread's, which waits for a worker's, and then calls `function`.
#[unsafe(no_mangle)]
pub extern "C" fn host_start(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| {
        drop(spawn_local(move || {
            wait_for_worker(());
            downcall(|| function(argument))
        }));
        0
    }))
}

/// How many calls of this thread are open, both ways.
#[unsafe(no_mangle)]
pub extern "C" fn host_open_calls() -> c_int {
    open_calls() as c_int
}

/// How many pooled stacks are in use.
#[unsafe(no_mangle)]
pub extern "C" fn host_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}
