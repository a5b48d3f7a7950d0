//! The synchronisation that upcall's own protocols use: the standard library's, or loom's when loom checks them; and sleeping
//! on an atomic number.

pub(crate) mod sys;

#[cfg(upcall_loom)]
use loom as library;
#[cfg(not(upcall_loom))]
use std as library;

pub(crate) use library::sync::atomic;
#[cfg(feature = "runtime")]
pub(crate) use library::sync::{Mutex, MutexGuard};

/// Between two sequentially consistent accesses, which need nothing between them. loom takes such accesses for acquire and release
/// only, and is told by a fence.
#[cfg(feature = "runtime")]
#[inline(always)]
pub(crate) fn sequential() {
    #[cfg(upcall_loom)]
    loom::sync::atomic::fence(atomic::Ordering::SeqCst);
}

/// Locks what is not part of a protocol that loom checks. Nothing of ours panics half-way through a change, so a lock that
/// somebody panicked under is as good as any.
#[inline]
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
