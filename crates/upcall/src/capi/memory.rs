//! The C side of memory given to C, with the conventions of `capi`.

use std::ffi::{c_int, c_void};

use crate::capi::status;
use crate::crossing::run_c_api;
use crate::memory;

/// Frees a string or an array returned by a function of this library.
///
/// It is for memory that the library's author documents so. The C library's `free` is not for it,
/// nor is this function for memory of `malloc`, or of another library.
///
/// Returns 0, also if `memory` is null. Returns -1 and changes nothing if `memory` is not such a
/// pointer, or was freed already. (If the same address was returned again since, it is the newer
/// memory that is freed.)
///
/// # Safety
/// Nobody uses `memory` any more.
pub unsafe fn memory_free(memory: *mut c_void) -> c_int {
    let freed = run_c_api(|| {
        // SAFETY: the caller guarantees that nobody uses the memory any more.
        if unsafe { memory::free(memory.addr()) } {
            return Ok(());
        }
        Err(format!(
            "memory_free: {memory:p} is no memory of this library, or was freed already: pass each pointer once, unchanged, to the library \
             that returned it"
        ))
    });
    status(freed)
}
