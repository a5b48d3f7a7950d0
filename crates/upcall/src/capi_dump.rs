//! The C side of snapshots; its conventions are those of `capi`.

use std::ffi::c_int;
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use crate::capi::status;
use crate::crossing::checked;
use crate::report::snapshot::snapshot;

/// Writes what is going on in the process to the file descriptor `fd`, as a tree: every attached thread,
/// its stacks, its open calls and fibers. From a debugger: `call (int)upcall_dump(2)`. Where the process
/// was stopped inside `malloc`, or inside upcall while that held a lock, this waits for ever, as every
/// function would that allocates; let the process go on for a moment then, and stop it again.
///
/// Returns 0, or -1 if `fd` can't be written to.
#[unsafe(no_mangle)]
pub extern "C" fn upcall_dump(fd: c_int) -> c_int {
    let written = checked(|| {
        if fd < 0 {
            return Err(format!("upcall_dump: {fd} is no file descriptor"));
        }
        // SAFETY: it is not closed here, and not used after this call.
        let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        file.write_all(snapshot().to_string().as_bytes()).map_err(|error| format!("upcall_dump: {error}"))
    });
    status(written)
}
