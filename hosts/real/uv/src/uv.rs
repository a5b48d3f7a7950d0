//! The small part of libuv's interface needed by the cases. Its callbacks are upcalls.
//!
//! A result told by a callback becomes a future.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use upcall::{LocalRuntime, enter};

use crate::Way;

/// `uv_loop_t`, `uv_handle_t` or `uv_req_t`. libuv tells their sizes.
type Opaque = *mut c_void;
type Callback = unsafe extern "C" fn(Opaque);

const ASYNC: c_int = 1;
const POLL: c_int = 8;
const TIMER: c_int = 13;
const WORK: c_int = 7;
const READABLE: c_int = 1;
const UNTIL_IDLE: c_int = 0;

#[link(name = "uv")]
unsafe extern "C" {
    fn uv_version_string() -> *const c_char;
    fn uv_library_shutdown();
    fn uv_loop_size() -> usize;
    fn uv_loop_init(uv: Opaque) -> c_int;
    fn uv_loop_close(uv: Opaque) -> c_int;
    fn uv_run(uv: Opaque, mode: c_int) -> c_int;
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_handle_get_data(handle: Opaque) -> *mut c_void;
    fn uv_handle_set_data(handle: Opaque, data: *mut c_void);
    fn uv_close(handle: Opaque, closed: Option<Callback>);
    fn uv_timer_init(uv: Opaque, timer: Opaque) -> c_int;
    fn uv_timer_start(timer: Opaque, called: Callback, after: u64, again: u64) -> c_int;
    fn uv_async_init(uv: Opaque, handle: Opaque, called: Callback) -> c_int;
    fn uv_async_send(handle: Opaque) -> c_int;
    fn uv_poll_init(uv: Opaque, poll: Opaque, fd: c_int) -> c_int;
    fn uv_poll_start(
        poll: Opaque,
        events: c_int,
        called: unsafe extern "C" fn(Opaque, c_int, c_int),
    ) -> c_int;
    fn uv_req_size(kind: c_int) -> usize;
    fn uv_req_get_data(request: Opaque) -> *mut c_void;
    fn uv_req_set_data(request: Opaque, data: *mut c_void);
    fn uv_queue_work(
        uv: Opaque,
        request: Opaque,
        work: Callback,
        after: unsafe extern "C" fn(Opaque, c_int),
    ) -> c_int;
    fn uv_thread_create(thread: *mut usize, entry: Callback, argument: *mut c_void) -> c_int;
    fn uv_thread_join(thread: *mut usize) -> c_int;
}

/// Memory for an object of libuv's.
fn memory(bytes: usize) -> Box<[u128]> {
    vec![0; bytes.div_ceil(size_of::<u128>())].into()
}

fn check(code: c_int) {
    assert!(code >= 0, "libuv: error {code}");
}

/// The version of the library.
pub fn version() -> &'static str {
    // SAFETY: the version is a constant C string.
    unsafe { CStr::from_ptr(uv_version_string()) }.to_str().unwrap()
}

/// Ends libuv's thread pool and joins its threads.
pub fn shut_down() {
    // SAFETY: the callers have closed every loop.
    upcall::downcall(|| unsafe { uv_library_shutdown() });
}

/// A loop of the calling thread.
pub struct Loop {
    uv: Opaque,
    _memory: Box<[u128]>,
}

impl Loop {
    /// Makes a loop with nothing to do.
    pub fn new() -> Self {
        // SAFETY: the function has no precondition. It returns a size.
        let mut memory = memory(unsafe { uv_loop_size() });
        let uv = memory.as_mut_ptr().cast();
        // SAFETY: the memory has room for a loop, and stays in place until the loop is closed.
        check(unsafe { uv_loop_init(uv) });
        Self { uv, _memory: memory }
    }

    /// Runs the loop until it has nothing to wait for.
    pub fn run(&self, way: Way) {
        // SAFETY: the loop is open, and does not run already.
        check(way.call(|| unsafe { uv_run(self.uv, UNTIL_IDLE) }));
    }

    /// Makes a handle. Its callbacks find `called` in its data.
    fn handle(
        &self,
        kind: c_int,
        init: impl FnOnce(Opaque) -> c_int,
        called: impl FnMut() -> bool + 'static,
    ) -> Opaque {
        // SAFETY: the function has no precondition. It returns a size.
        let mut memory = memory(unsafe { uv_handle_size(kind) });
        let handle = memory.as_mut_ptr().cast();
        check(init(handle));
        let called = Box::into_raw(Box::new(Called { function: Box::new(called), _memory: memory }));
        // SAFETY: `init` has initialised the handle.
        unsafe { uv_handle_set_data(handle, called.cast()) };
        handle
    }

    /// Calls `called` every millisecond, until it returns false.
    pub fn every_millisecond(&self, called: impl FnMut() -> bool + 'static) {
        // SAFETY: the loop is open, and the handle's memory stays until the handle is closed.
        let timer = self.handle(TIMER, |timer| unsafe { uv_timer_init(self.uv, timer) }, called);
        // SAFETY: as above; the timer is initialised.
        check(unsafe { uv_timer_start(timer, called_back, 1, 1) });
    }

    /// Calls `called` after [`Waker::wake`], until it returns false. Several wakes may cause one
    /// call.
    pub fn woken(&self, called: impl FnMut() -> bool + 'static) -> Waker {
        // SAFETY: the loop is open, and the handle's memory stays until the handle is closed.
        Waker(self.handle(ASYNC, |handle| unsafe { uv_async_init(self.uv, handle, called_back) }, called))
    }

    /// Runs the ready fibers of this thread's runtime as part of the loop, until `ended` returns
    /// true.
    pub fn drive(&self, runtime: &Rc<LocalRuntime>, ended: impl Fn() -> bool + 'static) {
        unsafe extern "C" fn readable(poll: Opaque, status: c_int, _: c_int) {
            check(status);
            // SAFETY: the requirements are those of libuv's call of this function.
            unsafe { called_back(poll) };
        }
        let (fd, runtime) = (runtime.fd().as_raw_fd(), runtime.clone());
        let run = move || {
            runtime.run_ready(64);
            !ended()
        };
        // SAFETY: as in `every_millisecond`. The descriptor belongs to the runtime, which the
        // callback keeps.
        let poll = self.handle(POLL, |poll| unsafe { uv_poll_init(self.uv, poll, fd) }, run);
        // SAFETY: as above; the handle is initialised.
        check(unsafe { uv_poll_start(poll, READABLE, readable) });
    }

    /// Runs `work` as an upcall on a thread of libuv's pool.
    ///
    /// The loop's thread sends the result, or the payload of a panic.
    pub fn work(&self, work: impl FnOnce() -> i64 + Send + 'static) -> Receiver<thread::Result<i64>> {
        let (sender, receiver) = bounded(1);
        // SAFETY: the function has no precondition. It returns a size.
        let mut memory = memory(unsafe { uv_req_size(WORK) });
        let request: Opaque = memory.as_mut_ptr().cast();
        let job = Job { work: Some(Box::new(work)), result: None, sender, _memory: memory };
        // SAFETY: the loop is open, and the request's memory stays until `after_work` frees it.
        unsafe {
            uv_req_set_data(request, Box::into_raw(Box::new(job)).cast());
            check(uv_queue_work(self.uv, request, on_pool, after_work));
        }
        receiver
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // SAFETY: `run` has returned with nothing to wait for, so all handles are closed.
        check(upcall::downcall(|| unsafe { uv_loop_close(self.uv) }));
    }
}

/// The data of a handle: a function that returns whether to call it again.
struct Called {
    function: Box<dyn FnMut() -> bool>,
    _memory: Box<[u128]>,
}

/// The callback of handles of all kinds. A panic closes the handle, as the result false does.
unsafe extern "C" fn called_back(handle: Opaque) {
    unsafe extern "C" fn closed(handle: Opaque) {
        // SAFETY: the handle is closed and unused. Its data is a box from `handle`.
        drop(enter(|| drop(unsafe { Box::from_raw(uv_handle_get_data(handle).cast::<Called>()) })));
    }
    // SAFETY: the data stays until the handle is closed, and a loop runs one callback at a time.
    let again = enter(|| unsafe { ((*uv_handle_get_data(handle).cast::<Called>()).function)() });
    if !again.unwrap_or(false) {
        // SAFETY: the handle is open.
        unsafe { uv_close(handle, Some(closed)) };
    }
}

/// A handle for waking a loop from any thread.
pub struct Waker(Opaque);

// SAFETY: libuv permits calls of `uv_async_send` on any thread.
unsafe impl Send for Waker {}

// SAFETY: libuv permits concurrent calls of `uv_async_send`.
unsafe impl Sync for Waker {}

impl Waker {
    /// Wakes the loop.
    ///
    /// # Safety
    /// The callback of this waker must not have returned false yet.
    pub unsafe fn wake(&self) {
        // SAFETY: the callback has not returned false, as the caller guarantees. So the handle is
        // open.
        check(upcall::downcall(|| unsafe { uv_async_send(self.0) }));
    }
}

struct Job {
    work: Option<Box<dyn FnOnce() -> i64 + Send>>,
    result: Option<thread::Result<i64>>,
    sender: Sender<thread::Result<i64>>,
    _memory: Box<[u128]>,
}

/// Runs a job, on a thread of the pool.
unsafe extern "C" fn on_pool(request: Opaque) {
    // SAFETY: only this function uses the job until it returns.
    let job = unsafe { &mut *uv_req_get_data(request).cast::<Job>() };
    let work = job.work.take().expect("a job runs once");
    // No downcall encloses this upcall, so the error has the payload.
    job.result = Some(enter(work).map_err(|panicked| panicked.into_payload().unwrap()));
}

/// Sends the result of a job, on the loop's thread.
unsafe extern "C" fn after_work(request: Opaque, status: c_int) {
    drop(enter(|| {
        check(status);
        // SAFETY: the request has been served. The job owns its memory.
        let job = unsafe { Box::from_raw(uv_req_get_data(request).cast::<Job>()) };
        job.sender.try_send(job.result.expect("the work has been done")).unwrap();
    }));
}

/// Runs `count` threads of libuv's, and waits for their ends. Each makes an upcall.
pub fn threads(count: usize, body: fn()) {
    unsafe extern "C" fn run(body: *mut c_void) {
        // SAFETY: the argument is the pointer to `body` passed below.
        enter(unsafe { *body.cast::<fn()>() }).unwrap();
    }
    let mut threads = vec![0; count];
    let body = (&raw const body).cast_mut().cast();
    for thread in &mut threads {
        // SAFETY: `body` outlives the thread, which is joined below.
        check(unsafe { uv_thread_create(thread, run, body) });
    }
    for thread in &mut threads {
        // SAFETY: the thread has been created, and is joined once.
        check(upcall::downcall(|| unsafe { uv_thread_join(thread) }));
    }
}
