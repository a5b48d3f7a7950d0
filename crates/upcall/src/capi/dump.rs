//! The C side of snapshots, with the conventions of `capi`.

use std::ffi::c_int;

use crate::capi::status;
use crate::crossing::run_c_api;
use crate::report::snapshot::snapshot;
use crate::sys;

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
        let tree = snapshot().to_string();
        // SAFETY: the caller guarantees that it may write to `fd`, if that is open.
        unsafe { sys::write_all(fd, tree.as_bytes()) }.map_err(|error| format!("dump: {error}"))
    });
    status(written)
}
