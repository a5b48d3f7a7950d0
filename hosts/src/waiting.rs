//! Functions that wait, and fibers that call C.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use upcall::{
    Fiber, JoinHandle, StackChoice, blocking, downcall, downcall_on_fiber, enter, entry, spawn, spawn_local,
    wait, with_stack, yield_now,
};

use crate::{Callback, catch, or_failed};

/// A C function and its argument, which C says may be used on the thread where they are called.
struct ToC(Callback, *mut c_void);

// SAFETY: C's promise.
unsafe impl Send for ToC {}

impl ToC {
    fn call(&self) -> c_int {
        (self.0)(self.1)
    }
}

/// A channel of numbers.
pub struct GuestChannel {
    sender: Sender<c_int>,
    receiver: Receiver<c_int>,
}

/// A channel that holds `capacity` numbers.
#[unsafe(no_mangle)]
pub extern "C" fn guest_channel_new(capacity: usize) -> Box<GuestChannel> {
    let (sender, receiver) = async_channel::bounded(capacity);
    Box::new(GuestChannel { sender, receiver })
}

/// Frees it.
#[unsafe(no_mangle)]
pub extern "C" fn guest_channel_free(_channel: Box<GuestChannel>) {}

/// An upcall that waits until the channel has taken `number`. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_send(channel: &GuestChannel, number: c_int) -> c_int {
    or_failed(enter(|| wait(channel.sender.send(number)).map_or(1, |()| 0)))
}

/// An upcall that waits for a number.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive(channel: &GuestChannel) -> c_int {
    or_failed(enter(|| receive(channel)))
}

/// The same on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_pooled(channel: &GuestChannel) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| receive(channel)))
}

/// The same with `min_stack` bytes of stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_sized(min_stack: usize, channel: &GuestChannel) -> c_int {
    or_failed(entry().min_stack(min_stack).enter(|| receive(channel)))
}

/// An upcall that waits for a number with `bytes` of stack below, by `with_stack`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_with_stack(bytes: usize, channel: &GuestChannel) -> c_int {
    or_failed(enter(|| with_stack(bytes, || receive(channel))))
}

fn receive(channel: &GuestChannel) -> c_int {
    wait(channel.receiver.recv()).expect("the channel is open")
}

/// An upcall that waits for some time. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_sleep(milliseconds: c_uint) -> c_int {
    or_failed(enter(|| {
        upcall::sleep(Duration::from_millis(milliseconds.into()));
        0
    }))
}

/// An upcall that lets other fibers run.
#[unsafe(no_mangle)]
pub extern "C" fn guest_yield() -> c_int {
    or_failed(enter(|| {
        yield_now();
        0
    }))
}

/// An upcall that waits for a worker's fiber, makes a downcall, and waits again.
#[unsafe(no_mangle)]
pub extern "C" fn guest_wait_call_wait(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait_around(|| downcall(|| callback(argument)))))
}

/// The same with a downcall on the fiber.
#[unsafe(no_mangle)]
pub extern "C" fn guest_wait_call_wait_on_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait_around(|| downcall_on_fiber(|| callback(argument)))))
}

fn wait_around(call: impl FnOnce() -> c_int) -> c_int {
    let worker = || spawn(|| (0..3).for_each(|_| yield_now())).join().unwrap();
    worker();
    let result = call();
    worker();
    result
}

/// `guest_catch` with the downcall on the fiber.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_catch_on_fiber(
    callback: Callback,
    argument: *mut c_void,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { catch(|| downcall_on_fiber(|| callback(argument)), buffer, size) }
}

/// An upcall that calls C on its fiber's stack, with `bytes` of stack more if they are not 0. However it ends, a local of its calls
/// `left` with the argument.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_on_fiber(
    bytes: usize,
    callback: Callback,
    left: Callback,
    argument: *mut c_void,
) -> c_int {
    struct Leaves(ToC);
    impl Drop for Leaves {
        fn drop(&mut self) {
            downcall_on_fiber(|| self.0.call());
        }
    }
    or_failed(enter(|| {
        let _leaves = Leaves(ToC(left, argument));
        with_stack(bytes, || downcall_on_fiber(|| callback(argument)))
    }))
}

/// A fiber that C may wait for.
pub type GuestFiber = JoinHandle<c_int>;

/// A fiber of a worker that calls C on the worker's own stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_spawn(callback: Callback, argument: *mut c_void) -> Box<GuestFiber> {
    let to_c = ToC(callback, argument);
    Box::new(spawn(move || downcall(|| to_c.call())))
}

/// A fiber of a worker that calls C on the fiber's stack.
///
/// # Safety
/// `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_spawn_on_fiber(
    name: *const c_char,
    callback: Callback,
    argument: *mut c_void,
) -> Box<GuestFiber> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    let to_c = ToC(callback, argument);
    Box::new(Fiber::builder().name(name).spawn(move || downcall_on_fiber(|| to_c.call())))
}

/// An upcall that adds a fiber to the thread's runtime, which calls C on the fiber's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_spawn_local(callback: Callback, argument: *mut c_void) -> Option<Box<GuestFiber>> {
    enter(|| Box::new(spawn_local(move || downcall_on_fiber(|| callback(argument))))).ok()
}

/// The same for a fiber that calls C on the system stack until that answers 0, and lets others run in between; with `bytes` of stack of
/// its own, if they are not 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_spawn_repeating(
    bytes: usize,
    callback: Callback,
    argument: *mut c_void,
) -> Option<Box<GuestFiber>> {
    let repeat = move || {
        with_stack(bytes, || {
            let mut times = 0;
            while downcall(|| callback(argument)) != 0 {
                times += 1;
                yield_now();
            }
            times
        })
    };
    enter(|| Box::new(spawn_local(repeat))).ok()
}

/// An upcall that waits for a fiber, and frees its handle. A fiber that gave nothing is a panic.
#[unsafe(no_mangle)]
pub extern "C" fn guest_join(fiber: Box<GuestFiber>) -> c_int {
    or_failed(enter(|| fiber.join().unwrap_or_else(|error| panic!("{error}"))))
}

/// Whether the fiber has ended.
#[unsafe(no_mangle)]
pub extern "C" fn guest_is_finished(fiber: &GuestFiber) -> c_int {
    c_int::from(fiber.is_finished())
}

/// Has the fiber end where it waits.
#[unsafe(no_mangle)]
pub extern "C" fn guest_abort(fiber: &GuestFiber) {
    fiber.abort();
}

/// Frees the handle of a fiber, which goes on.
#[unsafe(no_mangle)]
pub extern "C" fn guest_detach(_fiber: Box<GuestFiber>) {}

/// An upcall that calls C on a thread for blocking calls, and waits for it.
#[unsafe(no_mangle)]
pub extern "C" fn guest_blocking(callback: Callback, argument: *mut c_void) -> c_int {
    let to_c = ToC(callback, argument);
    or_failed(enter(|| blocking(move || to_c.call())))
}
