//! The synchronisation primitives of upcall's own protocols.
//!
//! They are the standard library's, or loom's when loom checks the protocols.

mod event;
mod list;
#[cfg(upcall_loom)]
mod loom;
#[cfg(upcall_loom)]
mod loom_event;

#[cfg(upcall_loom)]
use ::loom as library;
#[cfg(not(upcall_loom))]
use std as library;

#[cfg(upcall_loom)]
pub(crate) use self::loom::{sleep_while, wake};
pub(crate) use event::Event;
pub(crate) use library::sync::atomic;
pub(crate) use list::{Linked, Remote};
#[cfg(feature = "runtime")]
pub(crate) use stackbounds::for_upcall::Condition;
pub(crate) use stackbounds::for_upcall::{Ended, Guard, Lock, Whose, Word};
#[cfg(not(upcall_loom))]
pub(crate) use stackbounds::for_upcall::{sleep_while, wake};

/// Orders two sequentially consistent accesses for loom; compiles to nothing otherwise.
///
/// Called between the accesses. Outside loom they need nothing between them. loom treats them as
/// acquire and release only, so it gets a fence.
#[inline(always)]
pub(crate) fn sequential() {
    #[cfg(upcall_loom)]
    ::loom::sync::atomic::fence(atomic::Ordering::SeqCst);
}

/// A lock needed by upcalls, held by the calling thread.
///
/// Until the drop, upcalls on this thread [work without it](in_own_code).
pub(crate) struct Held<T: 'static> {
    guard: Guard<'static, T>,
    // Declared last, to be dropped last.
    _own_code: OwnCode,
}

/// Takes a lock needed by upcalls.
pub(crate) fn hold<T>(lock: &'static Lock<T>) -> Held<T> {
    let _own_code = OwnCode::begin();
    Held { guard: lock.lock(), _own_code }
}

#[cfg(feature = "runtime")]
impl<T> Held<T> {
    /// Releases the lock until a notification, or for `timeout` at most; returns whether time ran
    /// out.
    ///
    /// Until the drop, upcalls on this thread still work without the lock.
    pub fn wait_for(self, told: &Condition, timeout: std::time::Duration) -> (Self, bool) {
        let Self { guard, _own_code } = self;
        let (guard, timed_out) = told.wait_for(guard, timeout);
        (Self { guard, _own_code }, timed_out)
    }
}

impl<T> std::ops::Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> std::ops::DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

std::thread_local! {
    /// The number of the calling thread's frames in own code, which must not be reentered.
    static OWN_CODE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A stretch of own code. Ends on drop, on the same thread.
pub(crate) struct OwnCode(std::marker::PhantomData<*mut ()>);

impl OwnCode {
    pub fn begin() -> Self {
        OWN_CODE.set(OWN_CODE.get() + 1);
        Self(std::marker::PhantomData)
    }
}

impl Drop for OwnCode {
    fn drop(&mut self) {
        OWN_CODE.set(OWN_CODE.get() - 1);
    }
}

/// Whether the calling thread is in own code.
///
/// Own code holds a lock needed by upcalls, or is in the middle of changing their data. An upcall
/// from there comes from the allocator or from a hook of `malloc`. It works without locks and
/// records.
pub(crate) fn in_own_code() -> bool {
    OWN_CODE.get() != 0 || stackbounds::for_upcall::holds_lock()
}

/// Locks data of one fiber, handle or scope, not of the process. Its users handle forks.
///
/// Ignores poisoning: our code never panics in the middle of a change, so the data is whole.
#[inline]
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
