//! Access to the names of coroutines from other threads.

use crate::stack::StackHeader;
use crate::sync::{Lock, Word};

/// The lock of names: its holder may read the names of other threads' coroutines.
static NAMES: Lock<()> = Lock::new(());

/// Keeps named coroutines from beginning and ending.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    NAMES.lock()
}

/// The lock of names, for forks.
pub(crate) fn lock_word() -> &'static Word {
    NAMES.word()
}

/// Calls `look` with the name of the coroutine that began on `stack`.
///
/// The stack is taken from the pool. The caller holds the lock of names and the pool's lock.
pub(crate) fn with_name<R>(stack: &StackHeader, look: impl FnOnce(Option<&str>) -> R) -> R {
    // SAFETY: `name` is null or points to the name of a coroutine. The coroutine cannot end while
    // the lock of names is held.
    look(unsafe { stack.name.get().as_ref() }.map(|name| &**name))
}
