//! A small Rust library on upcall, as an embedder would write it.
use std::ffi::{c_char, c_int, c_long, c_void};
use std::hint::black_box;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};
use std::time::Duration;
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(fibers = FIBERS);

/// `upcall_last_message` under its older name, used by the programs of the runner.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcall_last_panic(buffer: *mut c_char, size: usize) -> c_int {
    // SAFETY: the caller guarantees that `buffer` is valid for writes of `size` bytes.
    unsafe { upcall::c::last_message(buffer, size) }
}

/// Lets Ctrl-C end waits in a process with Python. Set up at load time, before the first upcall.
mod python {
    use super::*;
    use std::sync::OnceLock;

    struct Api {
        this_thread: unsafe extern "C" fn() -> *mut c_void,
        ensure: unsafe extern "C" fn() -> c_int,
        release: unsafe extern "C" fn(c_int),
        check_signals: unsafe extern "C" fn() -> c_int,
        clear: unsafe extern "C" fn(),
        set_interrupt: unsafe extern "C" fn(),
    }

    static API: OnceLock<Api> = OnceLock::new();

    #[used]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
    static AT_LOAD: extern "C" fn() = {
        extern "C" fn at_load() {
            macro_rules! find {
                ($name:literal) => {{
                    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, $name.as_ptr()) };
                    if found.is_null() {
                        return;
                    }
                    unsafe { std::mem::transmute(found) }
                }};
            }
            let api = Api {
                this_thread: find!(c"PyGILState_GetThisThreadState"),
                ensure: find!(c"PyGILState_Ensure"),
                release: find!(c"PyGILState_Release"),
                check_signals: find!(c"PyErr_CheckSignals"),
                clear: find!(c"PyErr_Clear"),
                set_interrupt: find!(c"PyErr_SetInterrupt"),
            };
            if API.set(api).is_ok() {
                let _ = upcall::config().interrupted(interrupted).install();
            }
        }
        at_load
    };

    fn interrupted() -> bool {
        let Some(api) = API.get() else { return false };
        unsafe {
            if (api.this_thread)().is_null() {
                return false;
            }
            let state = (api.ensure)();
            let interrupted = (api.check_signals)() != 0;
            if interrupted {
                // ctypes reports a set exception as its own error. So Python raises it later.
                (api.clear)();
                (api.set_interrupt)();
            }
            (api.release)(state);
            interrupted
        }
    }
}

pub type Cb = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_add(a: c_int, b: c_int) -> c_int {
    black_box(a) + b
}

#[inline(never)]
fn eat(bytes: usize) -> u8 {
    let a = black_box([1u8; 4096]);
    if bytes > 4096 { eat(bytes - 4096).wrapping_add(a[17]) } else { a[3] }
}

/// Uses about `bytes` of stack.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_deep(bytes: usize) -> c_int {
    eat(bytes);
    0
}

/// Returns the bytes of stack remaining according to stackbounds, or -1 if unknown.
#[unsafe(no_mangle)]
pub extern "C" fn g_remaining() -> c_long {
    stackbounds::remaining().map_or(-1, |n| n as c_long)
}

/// Returns 1 if an upcall runs in place, 2 if it runs elsewhere, -1 if it is refused.
#[unsafe(no_mangle)]
pub extern "C" fn g_where() -> c_int {
    let here = stackbounds::stack_pointer();
    upcall::enter(|| {
        let there = stackbounds::stack_pointer();
        if here.abs_diff(there) < 16384 { 1 } else { 2 }
    })
    .unwrap_or(-1)
}

#[upcall::export(on_panic = -7)]
#[unsafe(no_mangle)]
pub extern "C" fn g_panic() -> c_int {
    panic!("guest panicked on purpose")
}

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_call(cb: Cb, user: *mut c_void) -> c_int {
    upcall::downcall(|| unsafe { cb(user) })
}

#[upcall::export(on_panic = -1, stack = "pooled")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_call_pooled(cb: Cb, user: *mut c_void) -> c_int {
    upcall::downcall(|| unsafe { cb(user) })
}

#[upcall::export(on_panic = -1, stack = "caller")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_call_caller(cb: Cb, user: *mut c_void) -> c_int {
    upcall::downcall(|| unsafe { cb(user) })
}

struct Data(*mut c_void, Cb);
unsafe impl Send for Data {}

/// Runs the callback in a fiber of this thread, on the fiber's stack.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_call_on_fiber(cb: Cb, user: *mut c_void) -> c_int {
    let fiber = FIBERS.fiber(move || upcall::downcall_on_fiber(|| unsafe { cb(user) }));
    upcall::wait(fiber)
}

/// Runs the callback on a worker.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_call_on_worker(cb: Cb, user: *mut c_void) -> c_int {
    let data = Data(user, cb);
    FIBERS.spawn(move || {
        let data = data;
        upcall::downcall(|| unsafe { (data.1)(data.0) })
    })
    .join()
    .unwrap_or(-2)
}

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_sleep_ms(ms: c_int) -> c_int {
    upcall::sleep(Duration::from_millis(ms as u64));
    0
}

#[upcall::export(on_panic = -1, stack = "pooled")]
#[unsafe(no_mangle)]
pub extern "C" fn g_sleep_ms_pooled(ms: c_int) -> c_int {
    upcall::sleep(Duration::from_millis(ms as u64));
    0
}

/// Spawns `n` fibers, each sleeping for 1 ms. Returns the number of fibers without a panic.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_spawn_many(n: c_int) -> c_int {
    let handles: Vec<_> = (0..n)
        .map(|_| {
            FIBERS.spawn(|| {
                upcall::sleep(Duration::from_millis(1));
                1
            })
        })
        .collect();
    handles.into_iter().map(|h| h.join().unwrap_or(0)).sum()
}

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_blocking_ms(ms: c_int) -> c_int {
    upcall::blocking(move || std::thread::sleep(Duration::from_millis(ms as u64)));
    0
}

type Channel = (async_channel::Sender<c_int>, async_channel::Receiver<c_int>);
static CHANNEL: std::sync::LazyLock<Channel> = std::sync::LazyLock::new(async_channel::unbounded);

/// Interrupted calls of `g_receive`. The numbers meant for them are dropped.
static GAVE_UP: AtomicU64 = AtomicU64::new(0);

/// An unanswered call of `g_receive`.
struct Receives;

impl Drop for Receives {
    fn drop(&mut self) {
        GAVE_UP.fetch_add(1, Relaxed);
    }
}

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_send(x: c_int) -> c_int {
    if GAVE_UP.fetch_update(Relaxed, Relaxed, |calls| calls.checked_sub(1)).is_ok() {
        return 0;
    }
    CHANNEL.0.try_send(x).map_or(-1, |()| 0)
}

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_receive() -> c_int {
    let receives = Receives;
    let received = upcall::wait(CHANNEL.1.recv()).unwrap_or(-2);
    std::mem::forget(receives);
    received
}

/// Waits for a number, and asks the host now and then whether to give up.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn g_receive_unless(interrupted: Cb, user: *mut c_void) -> c_int {
    use std::future::Future;
    use std::task::Poll;
    let mut receive = std::pin::pin!(CHANNEL.1.recv());
    loop {
        let mut tick = std::pin::pin!(async { upcall::wait(async {}) });
        let _ = &mut tick;
        let got = upcall::wait(std::future::poll_fn(|cx| match receive.as_mut().poll(cx) {
            Poll::Ready(x) => Poll::Ready(Some(x.unwrap_or(-2))),
            Poll::Pending => Poll::Ready(None),
        }));
        if let Some(x) = got {
            return x;
        }
        if upcall::downcall(|| unsafe { interrupted(user) }) != 0 {
            return -3;
        }
        upcall::sleep(Duration::from_millis(20));
    }
}

/// The open calls of this thread, according to the snapshot; -1 if the thread is not attached.
#[unsafe(no_mangle)]
pub extern "C" fn g_open_calls() -> c_int {
    let s = upcall::snapshot();
    s.threads.iter().find(|t| t.current).map_or(-1, |t| t.calls.len() as c_int)
}

#[unsafe(no_mangle)]
pub extern "C" fn g_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}

#[unsafe(no_mangle)]
pub extern "C" fn g_reserved() -> c_long {
    upcall::snapshot().pool.reserved_bytes as c_long
}

/// Spins in an upcall for `turns` turns.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_spin(turns: u64) -> c_int {
    static T: AtomicU64 = AtomicU64::new(0);
    for _ in 0..turns {
        T.fetch_add(1, Relaxed);
    }
    0
}
static NOTHING: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
#[unsafe(no_mangle)]
pub extern "C" fn g_touch() {
    NOTHING.load(Relaxed);
}

#[cfg(feature = "tracing")]
#[unsafe(no_mangle)]
pub extern "C" fn g_trace_install() {
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .try_init();
}

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn g_local_spawn() -> c_int {
    drop(FIBERS.spawn_local(|| ()));
    0
}
