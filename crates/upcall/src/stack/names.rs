//! Names of coroutines, for others than their threads.

use std::sync::Mutex;

use super::Control;
use crate::sync;

/// The lock of names: who holds it can look at those of other threads' coroutines.
static NAMES: Mutex<()> = Mutex::new(());

/// Keeps coroutines that have names from beginning and ending.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    sync::lock(&NAMES)
}

/// Calls `look` with the name of the coroutine that began on `stack`, which is taken from the pool. For who holds the lock of names, and the pool's.
pub(crate) fn with_name<R>(stack: &Control, look: impl FnOnce(Option<&str>) -> R) -> R {
    // SAFETY: null, or the name of a coroutine that cannot end while the lock is held.
    look(unsafe { stack.name.get().as_ref() }.map(|name| &**name))
}
