//! Fibers of Windows, not described to upcall.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use windows_sys::Win32::System::Threading::{
    ConvertFiberToThread, ConvertThreadToFiberEx, CreateFiberEx, DeleteFiber, SwitchToFiber,
};

use super::coroutines::main;

const STACK_SIZE: usize = 256 << 10;

/// A fiber, and the resuming thread as a fiber.
pub struct Context {
    coroutine: *mut c_void,
    resumer: Cell<*mut c_void>,
}

impl Context {
    /// Makes a fiber. The first `resume` calls [`main`] on it.
    pub fn new() -> Result<Self, &'static str> {
        // SAFETY: `begin` ignores its pointer, so it may be null.
        let coroutine = unsafe { CreateFiberEx(0, STACK_SIZE, 0, Some(begin), ptr::null()) };
        assert!(!coroutine.is_null(), "there is no memory for a fiber");
        Ok(Self { coroutine, resumer: Cell::new(ptr::null_mut()) })
    }

    /// Runs the coroutine until it gives way. Meanwhile, the thread is a fiber.
    pub fn resume(&self) {
        // SAFETY: the thread is no fiber yet, and the coroutine is one that does not run.
        unsafe {
            let resumer = ConvertThreadToFiberEx(ptr::null(), 0);
            assert!(!resumer.is_null(), "there is no memory for a fiber");
            self.resumer.set(resumer);
            SwitchToFiber(self.coroutine);
            ConvertFiberToThread();
        }
    }

    /// Leaves the coroutine, which is running, until it is resumed.
    pub fn give_way(&self) {
        // SAFETY: the resumer is suspended in `resume`.
        unsafe { SwitchToFiber(self.resumer.get()) };
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the fiber does not run, and nothing on its stack is needed any more.
        unsafe { DeleteFiber(self.coroutine) };
    }
}

unsafe extern "system" fn begin(_: *mut c_void) {
    main();
}
