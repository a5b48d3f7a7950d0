//! Functions that wait, and fibers that call C.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use upcall::{
    JoinHandle, StackChoice, blocking, downcall, downcall_on_fiber, enter, entry, wait, with_stack, yield_now,
};

use crate::FIBERS;
use crate::{Callback, catch, or_failed};

/// A C function and its argument. C guarantees that both may be used on the thread of the call.
struct ToC(Callback, *mut c_void);

// SAFETY: C guarantees that the function may be called, with its argument, on another thread.
unsafe impl Send for ToC {}

impl ToC {
    fn call(&self) -> c_int {
        (self.0)(self.1)
    }
}

/// A channel of numbers.
pub struct GuestChannel {
    sender: Sender<c_int>,
    pub(crate) receiver: Receiver<c_int>,
}

/// Makes a channel with room for `capacity` numbers.
#[unsafe(no_mangle)]
pub extern "C" fn guest_channel_new(capacity: usize) -> Box<GuestChannel> {
    let (sender, receiver) = async_channel::bounded(capacity);
    Box::new(GuestChannel { sender, receiver })
}

/// Frees a channel.
#[unsafe(no_mangle)]
pub extern "C" fn guest_channel_free(_channel: Box<GuestChannel>) {}

/// Sends `number` in an upcall, waiting until the channel has room. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_send(channel: &GuestChannel, number: c_int) -> c_int {
    or_failed(enter(|| wait(channel.sender.send(number)).map_or(1, |()| 0)))
}

/// Receives a number in an upcall, waiting for one.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive(channel: &GuestChannel) -> c_int {
    or_failed(enter(|| receive(channel)))
}

/// Receives a number in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_pooled(channel: &GuestChannel) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| receive(channel)))
}

/// Receives a number in an upcall with `min_stack` bytes of stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_sized(min_stack: usize, channel: &GuestChannel) -> c_int {
    or_failed(entry().min_stack(min_stack).enter(|| receive(channel)))
}

/// Receives a number in an upcall, inside `with_stack` for `bytes`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_with_stack(bytes: usize, channel: &GuestChannel) -> c_int {
    or_failed(enter(|| with_stack(bytes, || receive(channel))))
}

pub(crate) fn receive(channel: &GuestChannel) -> c_int {
    wait(channel.receiver.recv()).expect("the channel is open")
}

/// Sleeps in an upcall. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_sleep(milliseconds: c_uint) -> c_int {
    or_failed(enter(|| {
        upcall::sleep(Duration::from_millis(milliseconds.into()));
        0
    }))
}

/// Lets other fibers run, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_yield() -> c_int {
    or_failed(enter(|| {
        yield_now();
        0
    }))
}

/// Waits for a worker's fiber, makes a downcall, and waits again, in one upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_wait_call_wait(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait_around(|| downcall(|| callback(argument)))))
}

/// Waits, makes a downcall on the fiber's stack, and waits again, in one upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_wait_call_wait_on_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait_around(|| downcall_on_fiber(|| callback(argument)))))
}

fn wait_around(call: impl FnOnce() -> c_int) -> c_int {
    let worker = || FIBERS.spawn(|| (0..3).for_each(|_| yield_now())).join().unwrap();
    worker();
    let result = call();
    worker();
    result
}

/// Makes a downcall on the fiber's stack and catches the panic raised there, like `guest_catch`.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes, and `size` must not be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_catch_on_fiber(
    callback: Callback,
    argument: *mut c_void,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the caller guarantees that `buffer` is valid for writes of `size` bytes.
    unsafe { catch(|| downcall_on_fiber(|| callback(argument)), buffer, size) }
}

/// Calls C on its fiber's stack, in an upcall; inside `with_stack` if `bytes` is not 0.
///
/// The destructor of a local calls `left` with the argument, however the call ends.
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

/// A fiber as C holds it, for a later join.
pub type GuestFiber = JoinHandle<c_int>;

/// Spawns a fiber for the workers. It calls C on the worker's own stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_spawn(callback: Callback, argument: *mut c_void) -> Box<GuestFiber> {
    let to_c = ToC(callback, argument);
    Box::new(FIBERS.spawn(move || downcall(|| to_c.call())))
}

/// Spawns a fiber for the workers. It calls C on the fiber's stack.
///
/// # Safety
/// `name` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_spawn_on_fiber(
    name: *const c_char,
    callback: Callback,
    argument: *mut c_void,
) -> Box<GuestFiber> {
    // SAFETY: the caller guarantees that `name` is a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    let to_c = ToC(callback, argument);
    Box::new(FIBERS.builder().name(name).spawn(move || downcall_on_fiber(|| to_c.call())))
}

/// Adds a fiber to the runtime of the thread, in an upcall. The fiber calls C on its own stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_spawn_local(callback: Callback, argument: *mut c_void) -> Option<Box<GuestFiber>> {
    enter(|| Box::new(FIBERS.spawn_local(move || downcall_on_fiber(|| callback(argument))))).ok()
}

/// Adds a fiber that calls C on the system stack until C returns 0, and yields in between.
///
/// If `bytes` is not 0, the fiber's code runs inside `with_stack`.
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
    enter(|| Box::new(FIBERS.spawn_local(repeat))).ok()
}

/// Waits for a fiber in an upcall, and frees its handle. Panics if the fiber gave no value.
#[unsafe(no_mangle)]
pub extern "C" fn guest_join(fiber: Box<GuestFiber>) -> c_int {
    or_failed(enter(|| fiber.join().unwrap_or_else(|error| panic!("{error}"))))
}

/// Returns 1 if the fiber has ended, otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_is_finished(fiber: &GuestFiber) -> c_int {
    c_int::from(fiber.is_finished())
}

/// Aborts the fiber: it ends at its current or next wait.
#[unsafe(no_mangle)]
pub extern "C" fn guest_abort(fiber: &GuestFiber) {
    fiber.abort();
}

/// Frees the handle of a fiber. The fiber continues.
#[unsafe(no_mangle)]
pub extern "C" fn guest_detach(_fiber: Box<GuestFiber>) {}

/// Calls C on a thread for blocking calls, and waits for it, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_blocking(callback: Callback, argument: *mut c_void) -> c_int {
    let to_c = ToC(callback, argument);
    or_failed(enter(|| blocking(move || to_c.call())))
}
