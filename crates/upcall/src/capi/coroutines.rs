//! The C side of `coroutines`, with the conventions of `capi`.

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::ptr::{self, NonNull};

use crate::capi::status;
use crate::crossing::run_c_api;
use crate::fiber::Fibers;
use crate::fiber::coroutines::{self, Coroutine, Host, Resumed};

/// Flag of `coroutines_install`: for all threads of the process, rather than the calling one.
const PROCESS: c_uint = 1;
/// Flag of `coroutines_install`: the host copies parts of the thread's own stack away and back.
const STACKS_MOVE: c_uint = 2;

type Current = unsafe extern "C-unwind" fn(data: *mut c_void) -> *mut c_void;
type Suspend = unsafe extern "C-unwind" fn(data: *mut c_void, coroutine: *mut c_void) -> c_int;
type Resume = unsafe extern "C-unwind" fn(data: *mut c_void, coroutine: *mut c_void);

/// A host in C: its functions and their data.
struct CHost {
    data: *mut c_void,
    current: Current,
    suspend: Suspend,
    resume: Option<Resume>,
    moves_stacks: bool,
}

thread_local! {
    /// The thread's last host. If it is installed again, as for each request, memory does not grow.
    static LAST: Cell<Option<&'static CHost>> = const { Cell::new(None) };
}

impl CHost {
    /// The host, for the life of the process.
    fn kept(self) -> &'static Self {
        let host = LAST.get().filter(|last| **last == self).unwrap_or_else(|| Box::leak(Box::new(self)));
        LAST.set(Some(host));
        host
    }

    fn parts(&self) -> (*mut c_void, [usize; 3], bool) {
        let resume = self.resume.map_or(0, |resume| resume as usize);
        (self.data, [self.current as usize, self.suspend as usize, resume], self.moves_stacks)
    }
}

impl PartialEq for CHost {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

// SAFETY: whoever installs a host for the process guarantees that any thread may call its functions
// with its data. A host of one thread stays on this thread.
unsafe impl Sync for CHost {}

// SAFETY: whoever installs a host guarantees the contract of `Host` for its functions.
unsafe impl Host for CHost {
    fn current(&self) -> Option<Coroutine> {
        // SAFETY: the functions may be called, by the contract of `coroutines_install`.
        NonNull::new(unsafe { (self.current)(self.data) }).map(Coroutine::new)
    }

    fn suspend(&self, coroutine: Coroutine) -> Resumed {
        // SAFETY: as above.
        match unsafe { (self.suspend)(self.data, coroutine.as_ptr()) } {
            0 => Resumed::ToGoOn,
            -1 => Resumed::NotSuspended,
            _ => Resumed::ToEnd,
        }
    }

    fn resume(&self, coroutine: Coroutine) {
        let resume =
            self.resume.expect("coroutines_run_ready: the host was installed without a function resume");
        // SAFETY: as above.
        unsafe { resume(self.data, coroutine.as_ptr()) }
    }

    fn moves_stacks(&self) -> bool {
        self.moves_stacks
    }
}

/// Says how to suspend the host's coroutines, so that waits of Rust functions suspend them and not
/// the thread.
///
/// `flags` is 0, or a sum:
/// - `UPCALL_COROUTINES_PROCESS`: for all threads. Otherwise it is for the calling thread.
/// - `UPCALL_COROUTINES_STACKS_MOVE`: the host copies parts of the thread's own stack away while
///   coroutines are suspended, as greenlet does. Then `current` is also called before each call of
///   C by Rust, and gives each coroutine the same name for its life.
///
/// The functions get `data`, and are called on the thread and the stack of the running coroutine:
/// - `current` names it by any pointer except null. If it returns null, the wait blocks the thread.
/// - `suspend` suspends it, and returns when the host has resumed it: 0 for it to go on, or 1 if it
///   is to end. Then the wait is ended: the Rust function returns its declared error value. If the
///   host cannot switch at this point, `suspend` returns -1 at once: the wait blocks the thread.
/// - `resume` may be null. It resumes a coroutine that can go on, and returns when that has been
///   suspended again, or has ended. `coroutines_run_ready` calls it.
///
/// The host resumes a coroutine when `coroutines_next_ready` or `coroutines_run_ready` names it; a
/// resumption before that does no harm.
///
/// An installation keeps a few words for the life of the process, unless it is equal to the
/// thread's last one.
///
/// Returns 0. Returns -1 if `current` or `suspend` is null, if a flag is unknown, or if the thread,
/// or the process, has hooks already.
///
/// # Safety
/// - The functions may be called with `data` until the hooks are uninstalled and every wait that
///   began before has ended: on the calling thread, or with `UPCALL_COROUTINES_PROCESS` on any.
/// - `suspend` returns on the thread that called it.
/// - The stack of a suspended coroutine is not freed or used otherwise. To get rid of a coroutine,
///   resume it, and let `suspend` return 1. The stack is not moved, except with
///   `UPCALL_COROUTINES_STACKS_MOVE`.
/// - C++ code there keeps the promise of `local_spawn` for its `thread_local` variables.
pub unsafe fn coroutines_install(
    fibers: Fibers,
    flags: c_uint,
    data: *mut c_void,
    current: Option<unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void>,
    suspend: Option<unsafe extern "C-unwind" fn(*mut c_void, coroutine: *mut c_void) -> c_int>,
    resume: Option<unsafe extern "C-unwind" fn(*mut c_void, coroutine: *mut c_void)>,
) -> c_int {
    let installed = run_c_api(|| {
        let current = current.ok_or("coroutines_install: current is null")?;
        let suspend = suspend.ok_or("coroutines_install: suspend is null")?;
        if flags & !(PROCESS | STACKS_MOVE) != 0 {
            return Err(format!("coroutines_install: {flags:#x} has an unknown flag"));
        }
        let moves_stacks = flags & STACKS_MOVE != 0;
        let host = CHost { data, current, suspend, resume, moves_stacks }.kept();
        let installed = match flags & PROCESS {
            0 => coroutines::install_on_thread(fibers, host),
            _ => coroutines::install(fibers, host),
        };
        installed.map_err(|error| format!("coroutines_install: {error}"))
    });
    status(installed)
}

/// Removes the hooks of `coroutines_install`, of the process or of the calling thread.
///
/// `flags` is 0 or `UPCALL_COROUTINES_PROCESS`. Waits block their threads from now on. Coroutines
/// that are suspended stay so, and the functions below name them as before. A wait that had begun
/// on another thread may still call the hooks of the process.
///
/// Returns 0. Returns -1 if there are no hooks, or if a flag is unknown.
pub fn coroutines_uninstall(flags: c_uint) -> c_int {
    let removed = run_c_api(|| {
        let removed = match flags & !STACKS_MOVE {
            0 => coroutines::uninstall_on_thread(),
            PROCESS => coroutines::uninstall(),
            _ => return Err(format!("coroutines_uninstall: {flags:#x} has an unknown flag")),
        };
        if removed { Ok(()) } else { Err("coroutines_uninstall: there are no hooks".to_owned()) }
    });
    status(removed)
}

/// Takes the next coroutine of the calling thread that can go on.
///
/// The host resumes it, sooner or later: it is not named again before that. A coroutine that has
/// ended is not named.
///
/// Returns 1 and writes the coroutine to `coroutine`. Returns 0 and writes null if there is none.
/// Returns -1 if `coroutine` is null.
///
/// # Safety
/// `coroutine` is null or valid for writing a pointer.
pub unsafe fn coroutines_next_ready(coroutine: *mut *mut c_void) -> c_int {
    let next = run_c_api(|| {
        if coroutine.is_null() {
            return Err("coroutines_next_ready: coroutine is null".to_owned());
        }
        Ok(coroutines::next_ready())
    });
    let Some(next) = next else { return -1 };
    // SAFETY: not null, so the caller guarantees that it is valid for writing.
    unsafe { coroutine.write(next.map_or(ptr::null_mut(), Coroutine::as_ptr)) };
    next.is_some().into()
}

/// Resumes coroutines of the calling thread that can go on, at most `max` of them.
///
/// Each runs until it is suspended again, or ends. One can be ready again at once: give a finite
/// `max`, and look at the loop's other work in between.
///
/// Returns the number of resumed coroutines. Returns -1 if one can go on and its hooks have no
/// function `resume`; `coroutines_next_ready` names it then. Returns -1 if a Rust function panicked
/// on a coroutine: its caller there has got its error value. Call this again for the others.
pub fn coroutines_run_ready(max: usize) -> c_long {
    run_c_api(|| Ok(coroutines::run_ready(max)))
        .map_or(-1, |resumed| c_long::try_from(resumed).unwrap_or(c_long::MAX))
}
