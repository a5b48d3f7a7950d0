//! Forks and SIGPIPE, which other systems lack.

use std::ffi::c_int;
use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};

use upcall::{enter, without_sigpipe};

use crate::or_failed;
use crate::suspended::GuestBell;

/// Forks while no thread uses the bell, except for the calls of wakers. Returns the child's id.
#[unsafe(no_mangle)]
pub extern "C" fn guest_bell_fork(bell: &GuestBell) -> c_int {
    let _first = bell.0.lock().unwrap();
    // SAFETY: nothing but `fork` is called while the lock is held.
    unsafe { libc::fork() }
}

/// Writes to a pipe with a closed reading end, in an upcall. Returns the error's number.
///
/// `kept_off` wraps the write in `without_sigpipe`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_write_to_nobody(kept_off: bool) -> c_int {
    or_failed(enter(|| {
        let mut ends = [0; 2];
        // SAFETY: `ends` is valid for writing two descriptors. After `pipe` has succeeded, this
        // function owns both.
        let mut writer = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            drop(OwnedFd::from_raw_fd(ends[0]));
            File::from(OwnedFd::from_raw_fd(ends[1]))
        };
        let mut write = || writer.write(b"x").map_err(|error| error.raw_os_error());
        let written = if kept_off { without_sigpipe(write) } else { write() };
        written.err().flatten().unwrap_or(0)
    }))
}
