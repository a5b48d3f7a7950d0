//! Functions only for the model test (`tests/model/main.rs`), besides those shared with other
//! programs.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::future::poll_fn;
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};
use std::task::Poll;

use upcall::report::Direction;
use upcall::{
    FiberLocal, StackChoice, downcall, downcall_on_fiber, enter, entry, wait, with_stack, yield_now,
};

use crate::{Callback, GuestFiber, or_failed};

/// Silences the panics of the random programs, which are very many. Other panics are still printed.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_silently() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.to_string();
        if !message.lines().any(|line| line.contains("panic ")) {
            eprintln!("{message}");
        }
    }));
}

/// Makes a downcall in an upcall, and checks afterwards that its locals are unchanged.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_holding(number: c_int, callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| {
        let held = black_box([number; 40]);
        let answer = downcall(|| callback(argument));
        assert!(black_box(&held).iter().all(|&one| one == number), "the frame of an upcall was overwritten");
        answer
    }))
}

/// Panics in an upcall. A local's destructor makes a downcall while the panic unwinds.
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

/// Calls C on the stack of the current fiber, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_on_own_fiber(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall_on_fiber(|| callback(argument))))
}

/// Calls C on the stack of the current fiber, inside `with_stack` for `bytes`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_with_stack_on_own_fiber(
    bytes: usize,
    callback: Callback,
    argument: *mut c_void,
) -> c_int {
    or_failed(enter(|| with_stack(bytes, || downcall_on_fiber(|| callback(argument)))))
}

/// Joins a fiber like `guest_join`, but raises the fiber's own panic.
#[unsafe(no_mangle)]
pub extern "C" fn guest_join_raising(fiber: Box<GuestFiber>) -> c_int {
    or_failed(enter(|| {
        fiber.join().unwrap_or_else(|error| resume_unwind(error.into_panic().expect("a panic")))
    }))
}

/// Returns the number of open downcalls of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn guest_open_downcalls() -> c_int {
    let threads = upcall::snapshot().threads;
    let calls = threads.into_iter().filter(|thread| thread.current).flat_map(|thread| thread.calls);
    calls.filter(|call| call.direction == Direction::Downcall).count() as c_int
}

std::thread_local! {
    static OF_THREAD: RefCell<c_int> = const { RefCell::new(0) };
}

static OF_FIBER: FiberLocal<Cell<c_int>> = FiberLocal::new(|| Cell::new(0));

const MUCH: usize = 300 << 10;

/// Sets both variables of the calling thread to 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_reset_locals() {
    OF_THREAD.set(0);
    OF_FIBER.with(|value| value.set(0));
}

/// Adds to a thread-local in an upcall. `way` chooses the code that runs during the borrow.
///
/// None of the ways waits.
#[unsafe(no_mangle)]
pub extern "C" fn guest_add_to_thread_local(way: c_int, number: c_int) -> c_int {
    let choice = if way == 1 { StackChoice::Pooled } else { StackChoice::Auto };
    let add = || {
        OF_THREAD.with_borrow_mut(|value| {
            let before = *value;
            match way {
                2 => with_stack(MUCH, || *value += number),
                3 => entry().stack(StackChoice::Pooled).enter(|| *value += number).unwrap(),
                4 => {
                    let panics = || with_stack(MUCH, || resume_unwind(Box::new("on its way")));
                    assert!(catch_unwind(panics).is_err());
                    *value += number;
                }
                _ => *value += number,
            }
            assert_eq!(*value, before + number, "somebody else changed it");
            *value
        })
    };
    or_failed(entry().stack(choice).enter(add))
}

/// Adds to the variable of the calling fiber, or else of the thread, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_add_to_fiber_local(number: c_int) -> c_int {
    or_failed(enter(|| OF_FIBER.with(|value| value.replace(value.get() + number) + number)))
}

/// Adds to the variable of the calling fiber or thread, with a wait while the variable is in use.
#[unsafe(no_mangle)]
pub extern "C" fn guest_add_around_yield(number: c_int) -> c_int {
    or_failed(enter(|| {
        OF_FIBER.with(|value| {
            let before = value.get();
            yield_now();
            assert_eq!(value.get(), before, "another fiber changed it");
            value.set(before + number);
            value.get()
        })
    }))
}

/// Makes a downcall while the variable is in use, and adds to the variable before and after.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_using_fiber_local(
    number: c_int,
    callback: Callback,
    argument: *mut c_void,
) -> c_int {
    or_failed(enter(|| {
        OF_FIBER.with(|value| {
            value.set(value.get() + number);
            let answer = downcall(|| callback(argument));
            value.set(value.get() + number);
            answer
        })
    }))
}

/// Waits for a future whose poll calls C as a plain function, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_poll_calls_plain(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| wait(poll_fn(|_| Poll::Ready(callback(argument))))))
}
