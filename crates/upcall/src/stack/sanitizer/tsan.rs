//! ThreadSanitizer: coroutines are its fibers.

use std::ffi::c_void;

unsafe extern "C" {
    fn __tsan_get_current_fiber() -> *mut c_void;
    fn __tsan_create_fiber(flags: u32) -> *mut c_void;
    fn __tsan_destroy_fiber(fiber: *mut c_void);
    fn __tsan_switch_to_fiber(fiber: *mut c_void, flags: u32);
}

/// A coroutine, as ThreadSanitizer knows it.
pub struct Fiber(*mut c_void);

impl Fiber {
    pub fn new() -> Self {
        // SAFETY: the function has no precondition.
        Self(unsafe { __tsan_create_fiber(0) })
    }

    /// Calls `resume` as this fiber.
    ///
    /// Inlined, since ThreadSanitizer must see as many calls as returns on each side.
    #[inline(always)]
    pub fn run<R>(&self, resume: impl FnOnce() -> R) -> R {
        // SAFETY: both fibers exist: the current one, and this one. `resume` does not unwind,
        // since a coroutine catches its panics.
        unsafe {
            let resumer = __tsan_get_current_fiber();
            __tsan_switch_to_fiber(self.0, 0);
            let result = resume();
            __tsan_switch_to_fiber(resumer, 0);
            result
        }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // SAFETY: `new` made the fiber. The coroutine has ended or has not begun, so the fiber
        // is not current.
        unsafe { __tsan_destroy_fiber(self.0) };
    }
}
