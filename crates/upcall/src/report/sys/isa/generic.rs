use std::ffi::c_void;

/// # Safety
/// None.
pub(in crate::report) unsafe fn stack_pointer(_context: *const c_void) -> Option<usize> {
    None
}
