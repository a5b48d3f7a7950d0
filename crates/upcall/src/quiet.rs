//! Where nobody can do anything with a panic: dropping what is not ours, messages, and the end of the process.

use std::fmt::Display;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::config::settings;

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

/// Says something on stderr, if there is one. Takes no lock, which a fork could have left locked.
pub(crate) fn report(message: impl Display) {
    write_to_stderr(format!("upcall: {message}\n").as_bytes());
}

/// Writes that to stderr, if there is one. Allocates nothing: signal handlers may call it.
pub(crate) fn write_to_stderr(mut left: &[u8]) {
    while !left.is_empty() {
        // SAFETY: `left` is readable for its length.
        let written = unsafe { libc::write(libc::STDERR_FILENO, left.as_ptr().cast(), left.len()) };
        match usize::try_from(written) {
            Ok(0) => break,
            Ok(written) => left = &left[written..],
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// Stops the process, saying why; the [host's handler](crate::Config::fatal_handler) has a word before.
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: impl Display) -> ! {
    let message = format!("{message}; the process is stopped");
    report(&message);
    if let Some(handler) = settings().fatal_handler {
        handler(&message);
    }
    std::process::abort()
}
