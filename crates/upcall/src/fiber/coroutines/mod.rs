//! Coroutines of the host, suspended by waits in their upcalls.
//!
//! Only the host can switch its coroutines. A wait in an upcall from one of them therefore blocks
//! the whole thread, unless the host says how to suspend it. With hooks of the host, the wait
//! suspends the coroutine, and the thread goes on with others:
//!
//! ```text
//! a coroutine of the host            the host's loop                other threads
//! ──────────────────────────────────────────────────────────────────────────────────
//! C calls Rust; Rust waits
//! └─ poll the future: pending
//!    current() names the coroutine
//!    suspend(coroutine) ───────────► runs other coroutines
//!                                    sleeps in poll, epoll …        wake the future:
//!                                    the descriptor is readable ◄── the coroutine is ready
//!                                    next_ready(), or run_ready()
//!    suspend returns ◄────────────── resumes the coroutine
//!    poll again: ready
//! ```
//!
//! The hooks are a [`Host`], [installed](install) for the process or [for one
//! thread](install_on_thread). The host's loop watches the thread's descriptor, [`fd`]. While it is
//! readable, the loop takes the coroutines that can go on from [`next_ready`], or lets
//! [`run_ready`] resume them. C has the same by `coroutines_install` and others of [`c`](crate::c).
//!
//! ```
//! use std::ffi::c_void;
//! use std::cell::Cell;
//! use std::ptr::NonNull;
//! use upcall::coroutines::{self, Coroutine, Host, Resumed};
//!
//! # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
//! /// A host with one coroutine, which does nothing else: its "switch" runs what makes it ready.
//! struct Toy(async_channel::Sender<i32>, Cell<u32>);
//!
//! // SAFETY: no stack is moved or freed, and `suspend` returns on the thread of its call.
//! unsafe impl Host for Toy {
//!     fn current(&self) -> Option<Coroutine> {
//!         Some(Coroutine::new(NonNull::from(self).cast::<c_void>()))
//!     }
//!
//!     fn suspend(&self, coroutine: Coroutine) -> Resumed {
//!         self.1.set(self.1.get() + 1);
//!         self.0.try_send(42).unwrap();
//!         assert_eq!(coroutines::next_ready(), Some(coroutine));
//!         Resumed::ToGoOn
//!     }
//! }
//!
//! let (sender, receiver) = async_channel::bounded(1);
//! let host: &Toy = Box::leak(Box::new(Toy(sender, Cell::new(0))));
//! coroutines::install_on_thread(FIBERS, host)?;
//! assert_eq!(upcall::wait(receiver.recv()), Ok(42));
//! assert_eq!(host.1.get(), 1);
//! # coroutines::uninstall_on_thread();
//! # Ok::<(), upcall::coroutines::AlreadyInstalled>(())
//! ```
//!
//! # When a wait suspends
//! - On a fiber of upcall, a wait suspends this fiber, whatever the host says.
//! - Elsewhere, it suspends the coroutine named by [`Host::current`].
//! - If `current` names none, it blocks the thread.
//!
//! It also blocks the thread in a signal handler, in the initialiser of a `LazyLock`, `OnceLock` or
//! `Once`, in a destructor during a panic, inside `current` itself, and, with the feature `tokio`,
//! inside the poll of another wait. The last three would leave state of the thread behind.
//!
//! # What a host must not do
//! While a coroutine is suspended, its Rust frames are live, and other code runs on its thread. So
//! whoever installs hooks promises the same for upcalls that wait as [`Fibers::promise`] asks for
//! code on fibers. C code further out on the coroutine must hold no lock needed by the thread's
//! other code.
//!
//! Some frames cannot be left by a switch: Lua's `lua_yield` does not return across C, and Python's
//! generators and `await` suspend one frame only. There `current` names no coroutine, and waits
//! block as without hooks.
//!
//! [`Fibers::promise`]: crate::Fibers::promise

mod clock;
#[cfg(all(test, upcall_loom))]
mod model;
mod signal;
mod suspend;
mod waits;

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

pub(super) use suspend::{Ended, suspend_until};
#[cfg(feature = "runtime")]
pub(crate) use waits::Taken;
use waits::{CoroutineWaits, SuspendedWait};
pub(crate) use waits::{Suspended, forget_others, lock_word, suspended};

use super::Fibers;
pub use crate::crossing::Killed;
use crate::crossing::downcall;
use crate::stack::kept;
use crate::sys::{self, EventRef};
use crate::thread::ThreadState;

/// One coroutine of the host, by a pointer that the host chose for it.
///
/// upcall does not read what it points to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct Coroutine(NonNull<c_void>);

// SAFETY: only the address is used.
unsafe impl Send for Coroutine {}
// SAFETY: as above.
unsafe impl Sync for Coroutine {}

impl Coroutine {
    /// Names a coroutine by a pointer.
    pub const fn new(pointer: NonNull<c_void>) -> Self {
        Self(pointer)
    }

    /// The pointer given to [`new`](Self::new).
    pub const fn as_ptr(self) -> *mut c_void {
        self.0.as_ptr()
    }
}

/// The end of a call of [`Host::suspend`]: why the coroutine goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumed {
    /// It can go on, or may. The wait polls its future, and suspends the coroutine again if that is
    /// not ready.
    ToGoOn,
    /// It is to end: the host kills it.
    ///
    /// The wait drops its future and unwinds, with the payload [`Killed`] and without the panic
    /// hook. So C gets the value declared by the exported function. The unwinding goes on at the
    /// enclosing downcalls of this coroutine, and not beneath it. [`wait_interruptible`] returns
    /// [`Interrupted`](crate::Interrupted) instead. A wait that must not end, such as that of a
    /// scope, blocks the thread until it is over, and the code goes on. So does every other wait if
    /// panics abort the process (`panic = "abort"`).
    ///
    /// [`wait_interruptible`]: crate::wait_interruptible
    ToEnd,
    /// It was not suspended: the host cannot switch at this point. The wait blocks the thread.
    NotSuspended,
}

/// A host with coroutines: how upcall suspends the running one.
///
/// upcall calls these functions on the thread of the coroutine, each [as C](crate::downcall): on
/// the stack of the code that made the upcall. They may call Rust functions in turn.
///
/// # Safety
/// - `suspend` returns on the thread that called it, with the stack of its caller as it was.
/// - The stack of a suspended coroutine is neither freed nor used for anything else before
///   `suspend` has returned. To get rid of a coroutine, resume it [`ToEnd`](Resumed::ToEnd).
/// - The stack is not moved away either, unless [`moves_stacks`](Self::moves_stacks) says so.
pub unsafe trait Host: 'static {
    /// Names the running coroutine, if it can be suspended; otherwise the wait blocks the thread.
    ///
    /// It is called when a future is pending, once a wait; with
    /// [`moves_stacks`](Self::moves_stacks) also at each downcall, to tell apart the calls of
    /// different coroutines. With such a host, a coroutine keeps its name.
    fn current(&self) -> Option<Coroutine>;

    /// Suspends the running coroutine, which `current` has just named, until the host resumes it.
    ///
    /// The host resumes it when [`next_ready`] or `resume` names it. Sooner does no harm.
    fn suspend(&self, coroutine: Coroutine) -> Resumed;

    /// Resumes a coroutine that can go on; called by [`run_ready`]. Returns when the coroutine has
    /// been suspended again, or has ended; or at once, if the host's loop resumes it later.
    ///
    /// A coroutine that the host has ended meanwhile is not named. By default, this panics, and the
    /// coroutine is named again: the host uses [`next_ready`] alone.
    fn resume(&self, coroutine: Coroutine) {
        panic!("coroutines::run_ready: the host has no function that resumes {coroutine:?}; use next_ready");
    }

    /// Whether the host copies parts of the thread's own stack away while coroutines are suspended,
    /// as greenlet does.
    ///
    /// Other threads may have addresses on the stack of a waiting upcall. So with such a host,
    /// upcalls from the thread's own stack run on pooled stacks, and a wait of one that runs on the
    /// own stack nevertheless blocks the thread.
    fn moves_stacks(&self) -> bool {
        false
    }
}

/// The number of installed hosts, of the process and of threads.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

/// The host of the process; null if there is none. Points to a leaked reference.
static OF_PROCESS: AtomicPtr<&'static dyn Host> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// Without Drop, so that a wait in a signal handler may look: the first use of a variable with
    /// Drop allocates.
    static OWN: Own = const { Own { host: Cell::new(None), waits: Cell::new(None), asks: Cell::new(0) } };
    /// Used by threads with a host of their own, or with waits on coroutines.
    static AT_THREAD_END: AtThreadEnd = const { AtThreadEnd };
}

/// The data of a thread with a host.
struct Own {
    host: Cell<Option<&'static dyn Host>>,
    waits: Cell<Option<&'static CoroutineWaits>>,
    /// SP of the frame that asks the host for the running coroutine; 0 if none does.
    asks: Cell<usize>,
}

/// Uninstalls the thread's host, and gives its waits back.
struct AtThreadEnd;

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        OWN.with(|own| {
            if own.host.take().is_some() {
                note_uninstalled();
            }
            if let Some(waits) = own.waits.take() {
                waits.give_back();
            }
        });
    }
}

/// Whether the thread is exiting. Not for signal handlers.
fn is_exiting() -> bool {
    AT_THREAD_END.try_with(|_| ()).is_err()
}

impl Own {
    /// The thread's waits; `None` if it is exiting. Not for signal handlers.
    fn waits(&self) -> Option<&'static CoroutineWaits> {
        if self.waits.get().is_none() && !is_exiting() {
            self.waits.set(Some(CoroutineWaits::take(ThreadState::current().id().serial)));
        }
        self.waits.get()
    }
}

fn note_installed() {
    INSTALLED.fetch_add(1, Relaxed);
    kept::keep_for_next(true);
}

fn note_uninstalled() {
    if INSTALLED.fetch_sub(1, Relaxed) == 1 {
        kept::keep_for_next(false);
    }
}

/// Whether any thread may have a host.
#[inline(always)]
pub(super) fn any_installed() -> bool {
    INSTALLED.load(Relaxed) != 0
}

/// The host of the calling thread: its own, or that of the process.
fn host(own: &Own) -> Option<&'static dyn Host> {
    own.host.get().or_else(|| {
        // SAFETY: null, or a pointer to a leaked reference, stored by `install`.
        unsafe { OF_PROCESS.load(Acquire).as_ref() }.copied()
    })
}

/// Installs a host for all threads of the process.
///
/// The token promises that exported functions hold no borrow of a thread-local across a wait; see
/// [What a host must not do](self#what-a-host-must-not-do).
///
/// # Errors
/// If the process has a host. [`uninstall`] removes it.
pub fn install<H: Host + Sync>(_fibers: Fibers, host: &'static H) -> Result<(), AlreadyInstalled> {
    let host: Box<&'static dyn Host> = Box::new(host);
    if host.moves_stacks() {
        // Other threads learn it at their next attachment, or at a wait on their own stacks.
        ThreadState::note_that_stacks_move(suspend::running);
    }
    let host = Box::into_raw(host);
    if OF_PROCESS.compare_exchange(ptr::null_mut(), host, AcqRel, Acquire).is_err() {
        // SAFETY: made above, and nobody else has it.
        drop(unsafe { Box::from_raw(host) });
        return Err(AlreadyInstalled);
    }
    note_installed();
    Ok(())
}

/// Installs a host for the calling thread, in place of the process's.
///
/// The token promises the same as for [`install`]. The thread's end uninstalls the host.
///
/// # Errors
/// If the thread has a host of its own, or is exiting.
pub fn install_on_thread(_fibers: Fibers, host: &'static dyn Host) -> Result<(), AlreadyInstalled> {
    OWN.with(|own| {
        if own.host.get().is_some() || is_exiting() {
            return Err(AlreadyInstalled);
        }
        own.host.set(Some(host));
        note_installed();
        if host.moves_stacks() {
            ThreadState::current().note_that_own_stack_moves(suspend::running);
        }
        Ok(())
    })
}

/// Removes the host of the process. Returns whether there was one.
///
/// Coroutines that are suspended stay so, and [`next_ready`] names them as before. A wait that had
/// begun on another thread may still ask the host.
pub fn uninstall() -> bool {
    let had_one = !OF_PROCESS.swap(ptr::null_mut(), AcqRel).is_null();
    if had_one {
        note_uninstalled();
    }
    had_one
}

/// Removes the host of the calling thread. Returns whether it had one.
///
/// Coroutines that are suspended stay so, and [`next_ready`] names them as before.
pub fn uninstall_on_thread() -> bool {
    let had_one = OWN.with(|own| own.host.take().is_some());
    if had_one {
        note_uninstalled();
    }
    had_one
}

sys::with_descriptors! {
    /// A file descriptor for the calling thread's loop: readable (`POLLIN`, level-triggered) while
    /// a coroutine of the thread can go on.
    ///
    /// It is made at the first call, and is the same for the thread's life. It may be readable in
    /// vain. [`next_ready`] makes it unreadable when it returns `None`. Poll the descriptor only:
    /// do not read from it or close it.
    ///
    /// # Errors
    /// If the system gives no descriptor, or the thread is exiting.
    pub fn fd() -> io::Result<std::os::fd::BorrowedFd<'static>> {
        event()
    }
}

sys::with_event_objects! {
    /// An event object for the calling thread's loop: signalled while a coroutine of the thread can
    /// go on. It is reset by hand, not by a wait.
    ///
    /// It is made at the first call, and is the same for the thread's life. It may be signalled in
    /// vain. [`next_ready`] resets it when it returns `None`. Wait for the object only: do not
    /// reset it or close it.
    ///
    /// # Errors
    /// If the system gives no event object, or the thread is exiting.
    pub fn event_handle() -> io::Result<std::os::windows::io::BorrowedHandle<'static>> {
        event()
    }
}

/// The event for the calling thread's loop.
pub(crate) fn event() -> io::Result<EventRef<'static>> {
    let waits = OWN.with(Own::waits).ok_or_else(|| io::Error::other("this thread is exiting"))?;
    Ok(waits.event()?.event())
}

/// Takes the next coroutine of the calling thread that can go on.
///
/// The caller resumes it, sooner or later: it is not named again before that. A coroutine that has
/// ended is not named. A name may be spurious: then the wait suspends the coroutine again.
pub fn next_ready() -> Option<Coroutine> {
    own_waits()?.next_ready()?.coroutine()
}

/// Resumes coroutines of the calling thread that can go on, by [`Host::resume`]; returns how many,
/// at most `max`.
///
/// A coroutine can be ready again at once. So give a finite `max`, and look at the loop's other
/// work in between.
///
/// # Panics
/// If `resume` panics. If it has not resumed the coroutine, that is named again. The panic of an
/// upcall on a coroutine also arrives here, as in any [`downcall`].
pub fn run_ready(max: usize) -> usize {
    let mut resumed = 0;
    while resumed < max {
        let Some(ready) = own_waits().and_then(CoroutineWaits::next_ready) else { break };
        let (Some(host), Some(coroutine)) = (ready.host(), ready.coroutine()) else { continue };
        resumed += 1;
        let resuming = Resuming(ready);
        downcall(|| host.resume(coroutine));
        std::mem::forget(resuming);
    }
    resumed
}

/// A call of [`Host::resume`]. If it panics without resuming the coroutine, the drop lists the wait
/// again.
struct Resuming(&'static SuspendedWait);

impl Drop for Resuming {
    fn drop(&mut self) {
        self.0.put_back();
    }
}

/// The waits of the calling thread, for forks; null if it has none.
pub(crate) fn own_waits_address() -> *const () {
    own_waits().map_or(ptr::null(), |waits| ptr::from_ref(waits).cast())
}

/// In the child of a fork: wakes the coroutines of the thread that forked, since their events may
/// have been in the parent.
pub(crate) fn look_again() {
    if let Some(waits) = own_waits() {
        waits.look_again();
    }
}

fn own_waits() -> Option<&'static CoroutineWaits> {
    OWN.with(|own| own.waits.get())
}

/// The error of installing a second host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyInstalled;

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(
            "a host of coroutines is installed already, or this thread is exiting: uninstall the first one",
        )
    }
}

impl std::error::Error for AlreadyInstalled {}
