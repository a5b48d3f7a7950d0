//! The C side of snapshots, with the conventions of `capi`.

use std::ffi::c_int;
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use crate::capi::status;
use crate::crossing::run_c_api;
use crate::report::snapshot::snapshot;

/// Writes the state of the process to the file descriptor `fd`, as a tree.
///
/// The tree has every attached thread with its stacks, open calls and fibers. From a debugger, with
/// the prefix `geo_`: `call (int)geo_dump(2)`. If the debugger has stopped the process inside
/// `malloc`, or inside upcall while it held a lock, this call waits for ever, like any function
/// that allocates. Then let the process run for a moment, and stop it again.
///
/// Returns 0. Returns -1 if `fd` cannot be written to.
///
/// # Safety
/// If `fd` is an open descriptor, the caller may write to it.
pub unsafe fn dump(fd: c_int) -> c_int {
    let written = run_c_api(|| {
        if fd < 0 {
            return Err(format!("dump: {fd} is no file descriptor"));
        }
        // SAFETY: the caller guarantees that it may write to `fd`. `ManuallyDrop` keeps the
        // descriptor open, and the `File` is not used after this call.
        let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        file.write_all(snapshot().to_string().as_bytes()).map_err(|error| format!("dump: {error}"))
    });
    status(written)
}
