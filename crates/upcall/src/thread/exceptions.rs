//! C++ exceptions on fibers.
//!
//! A C++ runtime keeps two words for each thread: the exceptions being handled, and the number of
//! those in flight. `throw;`, `std::current_exception` and `std::uncaught_exceptions` read them. If
//! a fiber waits in a `catch` block, or in a destructor during unwinding, its frames rely on them.
//! Rule: **each fiber has its own**, exchanged with the thread's at each switch.
//!
//! The runtime is looked up at run time: first through a weak reference bound by the dynamic
//! linker, then among the objects of the process. This happens when the first fiber is made. While
//! no runtime is known, each fiber looks again at its first `downcall_on_fiber`.
//!
//! glibc guards the list of objects by a lock, and does not free this lock in the child of a fork.
//! Rule: **no fork happens while a thread of ours looks.** Otherwise the child's own first look
//! would wait for ever. One thread looks at a time: a second one may not conclude from the first
//! look, not finished yet, that nothing was loaded since.

use std::cell::Cell;
use std::ffi::{c_uint, c_void};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::ThreadState;
use crate::stack::service;
use crate::sync::{Lock, Word, hold, in_own_code};
use crate::sys::cpp_runtime;

/// `__cxa_eh_globals` of the Itanium C++ ABI.
#[repr(C)]
pub(crate) struct Exceptions {
    caught: Cell<*mut c_void>,
    uncaught: Cell<c_uint>,
}

impl Exceptions {
    #[inline(always)]
    fn is_none(&self) -> bool {
        self.caught.get().is_null() & (self.uncaught.get() == 0)
    }

    #[inline(always)]
    fn swap(&self, other: &Self) {
        if !(self.is_none() & other.is_none()) {
            self.caught.swap(&other.caught);
            self.uncaught.swap(&other.uncaught);
        }
    }
}

/// The C++ exceptions of a coroutine.
pub(crate) struct OwnExceptions {
    /// While the coroutine is suspended, its own exceptions; while it runs, its resumer's.
    others: Exceptions,
    /// The exceptions of the coroutine's thread, once a runtime is known.
    threads: Cell<Option<&'static Exceptions>>,
    /// Whether the coroutine's code has looked for a runtime loaded late.
    looked: Cell<bool>,
}

impl OwnExceptions {
    /// Makes the exceptions of a coroutine of this thread.
    #[inline(always)]
    pub fn new() -> Self {
        let others = Exceptions { caught: Cell::new(ptr::null_mut()), uncaught: Cell::new(0) };
        Self { others, threads: Cell::new(of_thread(ThreadState::current())), looked: Cell::new(false) }
    }

    /// Exchanges the exceptions. Called before the coroutine runs, and after it was suspended.
    #[inline(always)]
    pub fn switch(&self) {
        if let Some(threads) = self.threads.get() {
            threads.swap(&self.others);
        }
    }

    /// Prepares for a call of C by the running coroutine: looks for a runtime, once, if none is
    /// known.
    #[inline(always)]
    pub fn c_comes(&self) {
        if self.threads.get().is_none() && !self.looked.replace(true) {
            self.look_again();
        }
    }

    /// Not on a service stack: C is about to run here, so there is room. Mostly, nothing was loaded
    /// since the last look.
    #[cold]
    #[inline(never)]
    fn look_again(&self) {
        look_unless_in_own_code();
        self.threads.set(of_thread(ThreadState::current()));
        self.switch();
    }
}

/// Whether a C++ exception is in flight on the calling thread.
#[cfg(feature = "runtime")]
pub(crate) fn is_in_flight() -> bool {
    look_unless_in_own_code();
    of_thread(ThreadState::current()).is_some_and(|exceptions| exceptions.uncaught.get() != 0)
}

const NEVER_LOOKED: usize = 0;
const NONE: usize = 1;

/// The address of the runtime's `__cxa_get_globals`, or one of the two numbers above.
static RUNTIME: AtomicUsize = AtomicUsize::new(NEVER_LOOKED);

/// The exceptions of the calling thread, if a runtime is known.
#[inline(always)]
fn of_thread(thread: &ThreadState) -> Option<&'static Exceptions> {
    let known = thread.exceptions.get();
    if known.is_none() && RUNTIME.load(Acquire) != NONE { ask(thread) } else { known }
}

#[cold]
#[inline(never)]
fn ask(thread: &ThreadState) -> Option<&'static Exceptions> {
    if RUNTIME.load(Acquire) == NEVER_LOOKED && !in_own_code() {
        service::run(look);
    }
    let runtime = RUNTIME.load(Acquire);
    if runtime == NONE || runtime == NEVER_LOOKED {
        return None;
    }
    // SAFETY: the number is the address of `__cxa_get_globals`, in a runtime that stays loaded. The
    // function may allocate, so it runs on a stack with room. Its result belongs to the thread as
    // long as the thread lives, and only this thread uses it.
    let exceptions = service::run(|| unsafe {
        let get_globals: extern "C" fn() -> *const Exceptions = std::mem::transmute(runtime);
        get_globals().as_ref()
    });
    thread.exceptions.set(exceptions);
    exceptions
}

/// Held during searches, and during forks.
static SEARCHING: Lock<()> = Lock::new(());

/// The lock of the searches, for forks.
pub(crate) fn lock_word() -> &'static Word {
    SEARCHING.word()
}

/// Looks for a runtime. In own code, does nothing: a signal handler may have interrupted a look of
/// this very thread.
fn look_unless_in_own_code() {
    if !in_own_code() {
        look();
    }
}

/// Looks for a runtime, unless one is known.
fn look() {
    let _alone = hold(&SEARCHING);
    let known = RUNTIME.load(Acquire);
    if known == NEVER_LOOKED || known == NONE {
        RUNTIME.store(cpp_runtime().unwrap_or(NONE), Release);
    }
}
