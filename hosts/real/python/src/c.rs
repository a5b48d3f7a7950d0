//! The functions of `python_host.h`.

use std::ffi::{c_int, c_uint, c_void};
use std::hint::black_box;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use upcall::{downcall, enter, wait};

use crate::host_calls::{Callback, FAILED, or_failed};
use crate::{FIBERS, open_calls, wait_for_worker};

/// Waits for a worker's fiber. Returns `number`.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_worker(number: c_int) -> c_int {
    or_failed(enter(|| wait_for_worker(number)))
}

/// A channel of numbers.
pub struct HostChannel(Sender<c_int>, Receiver<c_int>);

/// Makes a channel without a limit.
#[unsafe(no_mangle)]
pub extern "C" fn host_channel_new() -> Box<HostChannel> {
    let (sender, receiver) = async_channel::unbounded();
    Box::new(HostChannel(sender, receiver))
}

/// Frees a channel.
#[unsafe(no_mangle)]
pub extern "C" fn host_channel_free(_channel: Box<HostChannel>) {}

/// Sends `number` to the channel. Returns 0, or -1 on failure.
#[unsafe(no_mangle)]
pub extern "C" fn host_send(channel: &HostChannel, number: c_int) -> c_int {
    or_failed(enter(|| wait(channel.0.send(number)).map_or(FAILED, |()| 0)))
}

/// Receives a number, waiting for one.
#[unsafe(no_mangle)]
pub extern "C" fn host_receive(channel: &HostChannel) -> c_int {
    or_failed(enter(|| wait(channel.1.recv()).expect("the channel is open")))
}

/// Starts a fiber of this thread. It waits for a worker's fiber, and then calls `function`.
#[unsafe(no_mangle)]
pub extern "C" fn host_start(function: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| {
        drop(FIBERS.spawn_local(move || {
            wait_for_worker(());
            downcall(|| function(argument))
        }));
        0
    }))
}

/// Returns the number of open calls of this thread, upcalls and downcalls.
#[unsafe(no_mangle)]
pub extern "C" fn host_open_calls() -> c_int {
    open_calls() as c_int
}

/// Returns the number of pooled stacks in use.
#[unsafe(no_mangle)]
pub extern "C" fn host_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}

/// Waits for some milliseconds. Returns 0, or -1 on failure.
#[unsafe(no_mangle)]
pub extern "C" fn host_sleep(milliseconds: c_uint) -> c_int {
    or_failed(enter(|| {
        upcall::sleep(Duration::from_millis(milliseconds.into()));
        0
    }))
}

/// Returns the address of a variable of this function.
#[unsafe(no_mangle)]
pub extern "C" fn host_frame() -> usize {
    enter(|| {
        let variable = 0_u8;
        (&raw const *black_box(&variable)).addr()
    })
    .unwrap_or(0)
}
