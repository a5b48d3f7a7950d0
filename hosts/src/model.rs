//! What the model test (`tests/model/main.rs`) needs besides the functions that other programs use.

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::panic::resume_unwind;

use upcall::report::Direction;
use upcall::{downcall, downcall_on_fiber, enter, with_stack};

use crate::{Callback, GuestFiber, or_failed};

/// Has the panics of the programs, of which there will be very many, print nothing.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_silently() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.to_string();
        if !message.lines().any(|line| line.contains("panic ")) {
            eprintln!("{message}");
        }
    }));
}

/// An upcall that makes a downcall, and looks afterwards whether its locals are what they were.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_holding(number: c_int, callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| {
        let held = black_box([number; 40]);
        let answer = downcall(|| callback(argument));
        assert!(black_box(&held).iter().all(|&one| one == number), "the frame of an upcall was overwritten");
        answer
    }))
}

/// An upcall that panics, and a local of which makes a downcall while the panic unwinds.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_calling(number: c_int, callback: Callback, argument: *mut c_void) -> c_int {
    struct Calls(Callback, *mut c_void);
    impl Drop for Calls {
        fn drop(&mut self) {
            downcall(|| (self.0)(self.1));
        }
    }
    or_failed(enter(|| {
        let _calls = Calls(callback, argument);
        panic!("panic {number}")
    }))
}

/// An upcall that calls C on its fiber's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_on_own_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall_on_fiber(|| callback(argument))))
}

/// The same with `bytes` of stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_with_stack_on_own_fiber(
    bytes: usize,
    callback: Callback,
    argument: *mut c_void,
) -> c_int {
    or_failed(enter(|| with_stack(bytes, || downcall_on_fiber(|| callback(argument)))))
}

/// `guest_join` that raises the fiber's own panic.
#[unsafe(no_mangle)]
pub extern "C" fn guest_join_raising(fiber: Box<GuestFiber>) -> c_int {
    or_failed(enter(|| {
        fiber.join().unwrap_or_else(|error| resume_unwind(error.into_panic().expect("a panic")))
    }))
}

/// How many downcalls of this thread are open.
#[unsafe(no_mangle)]
pub extern "C" fn guest_open_downcalls() -> c_int {
    let threads = upcall::snapshot().threads;
    let calls = threads.into_iter().filter(|thread| thread.current).flat_map(|thread| thread.calls);
    calls.filter(|call| call.direction == Direction::Downcall).count() as c_int
}
