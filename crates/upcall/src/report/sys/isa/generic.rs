use std::ffi::c_void;

/// Returns `None`: the layout of the context is not known here.
///
/// # Safety
/// No requirements.
pub(in crate::report) unsafe fn stack_pointer(_context: *const c_void) -> Option<usize> {
    None
}

/// Returns `None`: the layout of the context is not known here.
///
/// # Safety
/// No requirements.
pub(in crate::report) unsafe fn code_pointer(_context: *const c_void) -> Option<usize> {
    None
}
