//! Messages on stderr, and aborting the process with a message.

use std::fmt::Display;
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys;

/// The host's [handler](crate::Config::fatal_handler), a `fn(&str)`; null for none.
static FATAL_HANDLER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Sets the handler that [`fatal`] calls before it aborts.
pub(crate) fn set_fatal_handler(handler: fn(&str)) {
    FATAL_HANDLER.store(handler as *mut (), Relaxed);
}

/// Writes a message to stderr, if the process has one.
///
/// It takes no lock: a fork could leave a lock locked in the child.
pub(crate) fn warn(message: impl Display) {
    write_to_stderr(format!("upcall: {message}\n").as_bytes());
}

/// Writes the bytes to stderr, if the process has one.
///
/// It allocates nothing, so signal handlers may call it.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    // SAFETY: stderr is there for messages. Without it, there is nobody to tell.
    let _ = unsafe { sys::write_all(sys::STDERR, bytes) };
}

/// Aborts the process with a message, after calling the [host's
/// handler](crate::Config::fatal_handler).
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: impl Display) -> ! {
    let message = format!("{message}; the process is stopped");
    warn(&message);
    let handler = FATAL_HANDLER.load(Relaxed);
    if !handler.is_null() {
        // SAFETY: the pointer is not null, and `set_fatal_handler` stores only pointers of this
        // type.
        unsafe { transmute::<*mut (), fn(&str)>(handler)(&message) };
    }
    std::process::abort()
}
