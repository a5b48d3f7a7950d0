//! Fiber-local values of a thread about to detach.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

use upcall::{FiberLocal, enter};

use crate::{Callback, or_failed};

/// Calls C in its destructor.
struct Kept(Callback, *mut c_void);

impl Drop for Kept {
    fn drop(&mut self) {
        (self.0)(self.1);
    }
}

static KEPT: FiberLocal<RefCell<Vec<Kept>>> = FiberLocal::new(RefCell::default);

/// Stores a fiber-local value in an upcall. The value's destructor calls back.
#[unsafe(no_mangle)]
pub extern "C" fn guest_keep_local(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| {
        KEPT.with(|kept| kept.borrow_mut().push(Kept(callback, argument)));
        0
    }))
}
