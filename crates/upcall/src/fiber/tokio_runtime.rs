//! The tokio runtime for waits outside of any tokio runtime.
//!
//! It is given by the process's closure, or is one of our own, made at the first need. Threads do
//! not survive a fork. So the child makes our own runtime anew. A closure already called in the
//! parent is not called again: it would give a runtime without threads.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::mem::transmute;
use std::panic::catch_unwind;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::thread;
#[cfg(feature = "runtime")]
use std::time::Duration;

#[cfg(feature = "runtime")]
use tokio::runtime::RuntimeFlavor;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::config::settings;
use crate::drop_guards::IgnoreDropPanic;
use crate::messages::warn;
use crate::process::fork;
use crate::sync::lock;

/// A closure that gives the handle of a runtime.
pub(crate) type Ask = fn() -> Handle;

/// The process's closure, an [`Ask`]; null for none.
static ASK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// The process that called it first, as its epoch plus 1; 0 while none has.
static ASKED_IN: AtomicUsize = AtomicUsize::new(0);

/// Our own runtime.
struct Own {
    epoch: usize,
    handle: Handle,
    /// `None` once it is shut down.
    runtime: Mutex<Option<Runtime>>,
}

/// Null, or a value leaked by `make`. Not a lock, since a fork could leave it locked in the child.
static OWN: AtomicPtr<Own> = AtomicPtr::new(ptr::null_mut());
/// The process that has shut ours down, as its epoch plus 1.
static SHUT_DOWN_IN: AtomicUsize = AtomicUsize::new(0);

/// Sets the tokio runtime that serves waits outside of any runtime.
///
/// These are waits on threads of C, on fibers, and those that block the only thread of a
/// current-thread runtime.
///
/// `handle` is called for each poll in need of it, from any thread, so it should only look the
/// handle up. The runtime must be a multi-thread one, or one driven by another thread. This
/// function may be called at any time; the new runtime serves waits that begin afterwards.
/// [`Config::tokio`](crate::Config::tokio) does the same as a setting. Without either, upcall makes
/// a multi-thread runtime at the first need, and shuts it down in [`shutdown`](crate::shutdown).
///
/// In the child of a fork, a runtime of the parent has no threads. If the parent has called its
/// closure, the child does not call it again. Instead, upcall's own runtime serves, made anew,
/// unless the child sets another closure.
///
/// ```
/// use std::sync::LazyLock;
/// use tokio::runtime::Runtime;
///
/// static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
///
/// #[upcall::export(on_panic = -1)]
/// extern "C" fn nap() -> i32 {
///     upcall::tokio_runtime(|| RUNTIME.handle().clone());
///     upcall::wait(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await });
///     0
/// }
/// # assert_eq!(nap(), 0);
/// ```
pub fn tokio_runtime(handle: fn() -> Handle) {
    let handle = handle as *mut ();
    if ASK.swap(handle, AcqRel) != handle {
        ASKED_IN.store(0, Relaxed);
    }
}

/// The process's closure: the last one set, or else the one in the settings.
fn ask() -> Option<Ask> {
    let ask = ASK.load(Acquire);
    if ask.is_null() {
        return settings().tokio;
    }
    // SAFETY: not null, so `tokio_runtime` stored it, as an `Ask`.
    Some(unsafe { transmute::<*mut (), Ask>(ask) })
}

/// Whether the closure was called in an ancestor of this process.
fn asked_elsewhere() -> bool {
    let asked_in = ASKED_IN.load(Relaxed);
    asked_in != 0 && asked_in != fork::epoch() + 1
}

thread_local! {
    /// The closure runs on this thread, or our own runtime is being made. Waits inside find no
    /// runtime.
    static LOOKS: Cell<bool> = const { Cell::new(false) };
}

/// The handle of the runtime, if there is one.
pub(super) fn handle() -> Option<Handle> {
    struct Looks;
    impl Drop for Looks {
        fn drop(&mut self) {
            LOOKS.set(false);
        }
    }
    if let Some(own) = own() {
        if ask().is_none() {
            return Some(own.handle.clone());
        }
    }
    if LOOKS.replace(true) {
        return None;
    }
    let _looks = Looks;
    if let Some(ask) = ask().filter(|_| !asked_elsewhere()) {
        ASKED_IN.store(fork::epoch() + 1, Relaxed);
        return Some(ask());
    }
    own().or_else(make).map(|own| own.handle.clone())
}

/// The handle of the runtime for tasks: that around the caller, if it has threads of its own.
#[cfg(feature = "runtime")]
pub(crate) fn for_tasks() -> Option<Handle> {
    let around = Handle::try_current().ok();
    around.filter(|around| around.runtime_flavor() == RuntimeFlavor::MultiThread).or_else(handle)
}

/// Our own runtime, if this process made it.
fn own() -> Option<&'static Own> {
    // SAFETY: null, or leaked by `make`, and never freed.
    unsafe { OWN.load(Acquire).as_ref() }.filter(|own| own.epoch == fork::epoch())
}

#[cold]
fn make() -> Option<&'static Own> {
    let epoch = fork::epoch();
    if !settings().makes_tokio_runtime || SHUT_DOWN_IN.load(Relaxed) == epoch + 1 {
        return None;
    }
    let runtime = match build() {
        Ok(runtime) => runtime,
        Err(error) => {
            static REPORTED: AtomicBool = AtomicBool::new(false);
            if !REPORTED.swap(true, Relaxed) {
                warn(format_args!(
                    "no tokio runtime could be made ({error}): waits outside of one find none, and tokio's timers and sockets panic there"
                ));
            }
            return None;
        }
    };
    let before = OWN.load(Acquire);
    let made = Own { epoch, handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) };
    let made = Box::into_raw(Box::new(made));
    // An earlier one is the parent's, and is left as it is: its threads are not here to be joined.
    if OWN.compare_exchange(before, made, AcqRel, Acquire).is_err() {
        // SAFETY: the exchange failed, so nobody else has the pointer.
        let made = unsafe { Box::from_raw(made) };
        let runtime = lock(&made.runtime).take();
        runtime.into_iter().for_each(Runtime::shutdown_background);
    }
    own()
}

/// Builds a runtime. tokio panics where it cannot start a thread, so a thread is started first, as
/// a test.
fn build() -> io::Result<Runtime> {
    thread::Builder::new().spawn(|| ())?.join().map_err(cannot_start)?;
    let build = || Builder::new_multi_thread().thread_name("tokio-upcall").enable_all().build();
    catch_unwind(build).map_err(cannot_start)?
}

/// The error for a panic with `payload`, which is dropped.
fn cannot_start(payload: Box<dyn Any + Send>) -> io::Error {
    drop(IgnoreDropPanic::new(payload));
    io::Error::other("its threads cannot be started")
}

/// Ends our own runtime, if there is one. From now on, none is made for waits outside of any.
#[cfg(feature = "runtime")]
pub(crate) fn shut_down(timeout: Duration) {
    SHUT_DOWN_IN.store(fork::epoch() + 1, Relaxed);
    let runtime = own().and_then(|own| lock(&own.runtime).take());
    OWN.store(ptr::null_mut(), Relaxed);
    match runtime {
        None => {}
        // tokio forbids to block inside a runtime, and the caller may be one of this runtime's
        // threads.
        Some(runtime) if Handle::try_current().is_ok() => runtime.shutdown_background(),
        Some(runtime) => runtime.shutdown_timeout(timeout),
    }
}
