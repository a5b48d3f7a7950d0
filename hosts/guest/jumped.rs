//! Functions in the middle of something when C skips their frames by `longjmp`.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::future::poll_fn;
use std::task::Poll;

use upcall::{FiberLocal, downcall, downcall_on_fiber, enter, wait};

use crate::{Callback, or_failed};

/// Calls C in the poll of a wait, in an upcall. The wait is the fiber's if there is one, otherwise
/// the thread's.
#[unsafe(no_mangle)]
pub extern "C" fn guest_poll_calls(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(poll_fn(|_| Poll::Ready(downcall_on_fiber(|| callback(argument)))))))
}

/// Calls C in the first poll of a wait, and returns 7 at the second.
///
/// C may wait in turn, or skip the poll by `longjmp`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_poll_waits_and_calls(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| {
        let mut called = false;
        wait(poll_fn(|context| {
            if std::mem::replace(&mut called, true) {
                return Poll::Ready(7);
            }
            downcall_on_fiber(|| callback(argument));
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }))
}

/// Makes a downcall while a fiber-local value of the thread is in use.
#[unsafe(no_mangle)]
pub extern "C" fn guest_local_calls(callback: Callback, argument: *mut c_void) -> c_int {
    static LOCAL: FiberLocal<Cell<c_int>> = FiberLocal::new(|| Cell::new(0));
    or_failed(enter(|| LOCAL.with(|_| downcall(|| callback(argument)))))
}

/// Makes a downcall in a fiber polled by the calling thread.
#[unsafe(no_mangle)]
pub extern "C" fn guest_fiber_calls(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(crate::FIBERS.fiber(move || downcall(|| callback(argument))))))
}

/// Returns 1 if the snapshot shows a wait blocking the calling thread, otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_thread_waits() -> c_int {
    or_failed(enter(|| {
        let snapshot = upcall::snapshot();
        c_int::from(snapshot.threads.iter().any(|thread| thread.current && thread.waits.is_some()))
    }))
}
