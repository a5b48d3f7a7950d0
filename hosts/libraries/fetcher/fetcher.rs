//! A library by a user of tokio: a runtime in a static, functions that wait, and completions.
//!
//! The first function in need of the runtime makes it. The functions wait for timers, sockets and
//! tasks served by tokio. The runtime's threads call the completions.
//!
//! Nothing is set up for upcall: each wait is `wait(async { … })`. `tests/tokio_library.rs` uses
//! the library from C (`fetcher.h`, `fetcher.c`), from Python (`fetcher.py`) and from runtimes.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use upcall::{Interrupted, downcall, wait, wait_interruptible};

upcall::c_api!();

/// The number of threads of the runtime.
const THREADS: usize = 2;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().expect("there are threads")
});

/// The way to the task that answers requests.
static SERVICE: LazyLock<mpsc::Sender<(c_int, oneshot::Sender<c_int>)>> = LazyLock::new(|| {
    let (sender, mut requests) = mpsc::channel::<(c_int, oneshot::Sender<c_int>)>(1);
    RUNTIME.spawn(async move {
        while let Some((number, answer)) = requests.recv().await {
            tokio::task::yield_now().await;
            let _ = answer.send(number + 1);
        }
    });
    sender
});

/// A completion: called by the library when something is done.
type Done = extern "C" fn(user: *mut c_void, result: c_int);

/// A completion and its argument.
struct Completion(Done, *mut c_void);

// SAFETY: `fetcher.h` requires that a completion may be called on any thread.
unsafe impl Send for Completion {}

impl Completion {
    fn call(self, result: c_int) {
        downcall(|| self.0(self.1, result));
    }
}

fn milliseconds(number: c_uint) -> Duration {
    Duration::from_millis(number.into())
}

/// Waits for `time` milliseconds. Returns 0.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_nap(time: c_uint) -> c_int {
    wait(async { tokio::time::sleep(milliseconds(time)).await });
    0
}

/// Returns `number + 1`, computed by a task of the runtime.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_ask(number: c_int) -> c_int {
    wait(async {
        let (answer, answered) = oneshot::channel();
        SERVICE.send((number, answer)).await.expect("it serves");
        answered.await.expect("it answers")
    })
}

/// Calls `done(user, number)` after `time` milliseconds, on a thread of the runtime. Returns 0 at
/// once.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_start(time: c_uint, number: c_int, done: Done, user: *mut c_void) -> c_int {
    let completion = Completion(done, user);
    RUNTIME.spawn(async move {
        tokio::time::sleep(milliseconds(time)).await;
        completion.call(number);
    });
    0
}

/// Calls `done(user, n)` for each `n` below `count`, at the same time, on threads of the runtime.
///
/// Returns 0 after all of these calls have returned.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_each(count: c_int, done: Done, user: *mut c_void) -> c_int {
    wait(async {
        let mut all = JoinSet::new();
        for n in 0..count {
            let completion = Completion(done, user);
            all.spawn_on(async move { completion.call(n) }, RUNTIME.handle());
        }
        all.join_all().await;
    });
    0
}

/// Returns the sum of the numbers from 1 to `count`, each from a task of the caller's runtime.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_sum(count: c_int) -> c_int {
    wait(async {
        let tasks = (1..=count).map(|n| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            n
        });
        tasks.collect::<JoinSet<_>>().join_all().await.into_iter().sum()
    })
}

/// Sends `number` through a socket pair of its own and back. Returns the number received.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_echo(number: c_int) -> c_int {
    let echoed: std::io::Result<c_int> = wait(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (mut server, _) = listener.accept().await?;
        let mut bytes = [0; 4];
        client.write_all(&number.to_ne_bytes()).await?;
        server.read_exact(&mut bytes).await?;
        server.write_all(&bytes).await?;
        client.read_exact(&mut bytes).await?;
        Ok(c_int::from_ne_bytes(bytes))
    });
    echoed.expect("there are sockets")
}

/// Waits for `time` milliseconds. Returns 1 after that time, or 2 if the host wants its thread
/// back.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_limited(time: c_uint) -> c_int {
    match wait_interruptible(async {
        tokio::time::timeout(milliseconds(time), std::future::pending::<()>()).await.is_err()
    }) {
        Ok(elapsed) => elapsed.into(),
        Err(Interrupted) => 2,
    }
}

/// Makes a timer outside `async`. Without a runtime, returns -1, and the message tells the remedy.
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_eager() -> c_int {
    wait(tokio::time::sleep(Duration::from_millis(1)));
    0
}

/// Lets this library's runtime serve waits outside runtimes. May be called at any time.
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_serve_waits() {
    upcall::tokio_runtime(|| RUNTIME.handle().clone());
}

/// Python's functions: for its signals, and for its GIL around a sleep.
mod python {
    use std::ffi::{CStr, c_int, c_void};
    use std::ptr;

    /// The address of a function of Python's.
    fn function(name: &CStr) -> *mut c_void {
        // SAFETY: `name` ends with 0.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    }

    macro_rules! python {
        ($name:ident($($argument:expr => $type:ty),*) -> $result:ty) => {{
            let function = function(const {
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                }
            });
            assert!(!function.is_null(), "the process has no Python");
            // SAFETY: the types are those declared in Python's headers, and the caller may call the
            // function.
            unsafe {
                let function: unsafe extern "C" fn($($type),*) -> $result = std::mem::transmute(function);
                function($($argument),*)
            }
        }};
    }

    pub fn release() -> *mut c_void {
        match python!(PyGILState_Check() -> c_int) {
            1 => python!(PyEval_SaveThread() -> *mut c_void),
            _ => ptr::null_mut(),
        }
    }

    pub fn take_back(state: *mut c_void) {
        if !state.is_null() {
            python!(PyEval_RestoreThread(state => *mut c_void) -> ());
        }
    }

    pub fn interrupted() -> bool {
        // The host can only want back a thread known to Python.
        if python!(PyGILState_GetThisThreadState() -> *mut c_void).is_null() {
            return false;
        }
        let state = python!(PyGILState_Ensure() -> c_int);
        let interrupted = python!(PyErr_CheckSignals() -> c_int) != 0;
        python!(PyGILState_Release(state => c_int) -> ());
        interrupted
    }
}

/// Declares that the host is Python. Returns 0. Call it before all other functions.
#[unsafe(no_mangle)]
pub extern "C" fn fetcher_host_is_python() -> c_int {
    let config = upcall::config().around_block(python::release, python::take_back);
    config.interrupted(python::interrupted).install().map_or(-1, |()| 0)
}
