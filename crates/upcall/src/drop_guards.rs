//! Guards against panics of drops, for places without anybody to handle them.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::messages::fatal;

/// Runs `drop`. If it panics, leaks the payload, whose own drop may panic.
pub(crate) fn drop_ignoring_panics(drop: impl FnOnce()) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(drop)) {
        std::mem::forget(second);
    }
}

/// Runs `call`. If it panics, drops the payload. A panic of this drop is ignored, and its payload
/// leaked.
#[cfg(feature = "runtime")]
pub(crate) fn call_ignoring_panics(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        drop(IgnoreDropPanic::new(payload));
    }
}

/// A value whose drop may panic: the panic ends here, by [`drop_ignoring_panics`].
pub(crate) struct IgnoreDropPanic<T>(ManuallyDrop<T>);

impl<T> IgnoreDropPanic<T> {
    #[inline]
    pub fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }

    #[inline]
    pub fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the value is taken once: `this` is never dropped, and nobody uses the field
        // again.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T> Deref for IgnoreDropPanic<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for IgnoreDropPanic<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for IgnoreDropPanic<T> {
    #[inline]
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            // SAFETY: the value is dropped once: this is the only `drop`, and `into_inner` prevents
            // it after taking the value.
            drop_ignoring_panics(|| unsafe { ManuallyDrop::drop(&mut self.0) });
        }
    }
}

/// Aborts the process with its message when it is dropped.
///
/// It is a local variable of code without permission to unwind, forgotten at the code's end.
pub(crate) struct AbortOnDrop(pub &'static str);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        fatal(self.0);
    }
}
