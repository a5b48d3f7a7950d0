//! The Rust functions called by PHP. `php_host.h` is their C side.

#[path = "../../host_calls.rs"]
mod host_calls;
mod pages;

use std::cell::RefCell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use host_calls::{Callback, NONE, or_failed};
use upcall::{JoinHandle, downcall_on_fiber, enter, wait, yield_now};

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(host, fibers = FIBERS);

/// Makes a downcall on the fiber's stack, if there is a fiber, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn host_call_on_fiber(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall_on_fiber(|| function(argument))))
}

thread_local! {
    /// The fibers started by `host_start`.
    static STARTED: RefCell<Vec<Option<JoinHandle<c_int>>>> = const { RefCell::new(Vec::new()) };
}

/// Waits for a worker's fiber. Returns `number`.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_worker(number: c_int) -> c_int {
    or_failed(enter(|| {
        let fiber = FIBERS.spawn(move || {
            yield_now();
            number
        });
        fiber.join().expect("it does not panic")
    }))
}

/// Waits for another thread. Returns `number`.
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

/// Waits for a fiber of this thread's `LocalRuntime`. That fiber waits for a worker's.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_fiber(number: c_int) -> c_int {
    or_failed(enter(|| {
        FIBERS.spawn_local(move || host_wait_for_worker(number)).join().expect("there is a runtime")
    }))
}

/// Sleeps. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn host_sleep(milliseconds: c_uint) -> c_int {
    or_failed(enter(|| {
        upcall::sleep(Duration::from_millis(milliseconds.into()));
        0
    }))
}

thread_local! {
    /// The channels of `host_channel`.
    static CHANNELS: RefCell<Vec<(Sender<c_int>, Receiver<c_int>)>> = const { RefCell::new(Vec::new()) };
}

fn channel(number: c_int) -> (Sender<c_int>, Receiver<c_int>) {
    CHANNELS.with_borrow(|channels| channels[number as usize].clone())
}

/// Makes a channel with room for `capacity` numbers. Returns its name for the functions below.
#[unsafe(no_mangle)]
pub extern "C" fn host_channel(capacity: c_int) -> c_int {
    or_failed(enter(|| {
        CHANNELS.with_borrow_mut(|channels| {
            channels.push(async_channel::bounded(capacity as usize));
            channels.len() as c_int - 1
        })
    }))
}

/// Sends a number, once there is room for it. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn host_send(to: c_int, number: c_int) -> c_int {
    or_failed(enter(|| {
        wait(channel(to).0.send(number)).expect("the receiver is there");
        0
    }))
}

/// Waits for a number.
#[unsafe(no_mangle)]
pub extern "C" fn host_receive(from: c_int) -> c_int {
    or_failed(enter(|| wait(channel(from).1.recv()).expect("the sender is there")))
}

/// Starts a fiber of this thread. The fiber waits for a worker's. Returns its name for
/// `host_ended`.
#[unsafe(no_mangle)]
pub extern "C" fn host_start(number: c_int) -> c_int {
    or_failed(enter(|| {
        let fiber = FIBERS.spawn_local(move || host_wait_for_worker(number));
        STARTED.with_borrow_mut(|started| {
            started.push(Some(fiber));
            started.len() as c_int - 1
        })
    }))
}

/// Returns the number of a fiber that has ended, otherwise -2.
#[unsafe(no_mangle)]
pub extern "C" fn host_ended(fiber: c_int) -> c_int {
    or_failed(enter(|| {
        let take =
            |started: &mut Vec<Option<JoinHandle<_>>>| started[fiber as usize].take_if(|it| it.is_finished());
        STARTED.with_borrow_mut(take).map_or(NONE, |ended| ended.join().expect("it does not panic"))
    }))
}

/// Returns the number of open calls of this thread, upcalls and downcalls.
#[unsafe(no_mangle)]
pub extern "C" fn host_open_calls() -> c_int {
    let snapshot = upcall::snapshot();
    snapshot.threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.calls.len() as c_int)
}

/// Returns the number of pooled stacks in use.
#[unsafe(no_mangle)]
pub extern "C" fn host_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}
