//! Where nobody can do anything with a panic: dropping what is not ours, and messages.

use std::fmt::Display;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the drop of something that may panic in turn, with a payload that may when it is dropped: that one is forgotten.
pub(crate) fn quietly(drop: impl FnOnce()) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(drop)) {
        std::mem::forget(second);
    }
}

/// Something that is dropped so.
pub(crate) struct Quiet<T>(ManuallyDrop<T>);

impl<T> Quiet<T> {
    #[inline]
    pub fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }

    #[inline]
    pub fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once: `this` is forgotten.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T> Deref for Quiet<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Quiet<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for Quiet<T> {
    #[inline]
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            // SAFETY: dropped once: this is the value's drop, and `into_inner` forgets the value.
            quietly(|| unsafe { ManuallyDrop::drop(&mut self.0) });
        }
    }
}

/// Says something on stderr, if there is one.
pub(crate) fn report(message: impl Display) {
    let _ = writeln!(std::io::stderr(), "upcall: {message}");
}
