//! Lua threads of one state that wait at the same time, each on a fiber.
//!
//! Lua permits that: to it, a state is used by one operating system thread at a time, and changes hands only while a function in C runs.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::task::{Poll, Waker};

use upcall::{Fiber, LocalRuntime, downcall_on_fiber, enter, wait};

use crate::api::*;
use crate::{TOO_MANY, finish, pop_error};

thread_local! {
    static TURN: Cell<i64> = const { Cell::new(1) };
    static WAITING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// `turn(n)`: waits until all smaller numbers have had their turn.
pub unsafe extern "C-unwind" fn turn(l: State) -> c_int {
    // SAFETY: Lua calls this with a state in use.
    let n = unsafe { luaL_checkinteger(l, 1) };
    let result = enter(|| {
        wait(poll_fn(|context| {
            if TURN.get() == n {
                return Poll::Ready(());
            }
            WAITING.with_borrow_mut(|waiting| waiting.push(context.waker().clone()));
            Poll::Pending
        }));
        TURN.set(n + 1);
        WAITING.take().into_iter().for_each(Waker::wake);
        0
    });
    // SAFETY: this frame owns nothing.
    unsafe { finish(l, result) }
}

/// `gather(…)`: what the functions return, called all at once, each on a fiber and a Lua thread of its own.
pub unsafe extern "C-unwind" fn gather(l: State) -> c_int {
    // SAFETY: Lua calls this with a state in use. The Lua threads stay on its stack until their fibers have ended, and each is used by its fiber.
    unsafe {
        let count = lua_gettop(l);
        luaL_checkstack(l, 2 * count, TOO_MANY);
        let result = enter(|| {
            TURN.set(1);
            let runtime = LocalRuntime::new().unwrap();
            let begin = |function| {
                let thread = lua_newthread(l);
                lua_pushvalue(l, function);
                lua_xmove(l, thread, 1);
                let fiber = move || downcall_on_fiber(|| lua_pcallk(thread, 0, 1, 0, 0, None));
                // Lua runs there, and upcalls in place.
                (thread, runtime.spawn_local_with(Fiber::<()>::builder().stack_size(512 << 10), fiber))
            };
            let begun: Vec<_> = (1..=count).map(begin).collect();
            let ended: Vec<_> = begun.into_iter().map(|(thread, fiber)| (thread, fiber.join())).collect();
            for (thread, status) in ended {
                match status {
                    Ok(OK) => lua_xmove(thread, l, 1),
                    Ok(_) => panic!("{}", pop_error(thread)),
                    Err(failed) => resume_unwind(failed.into_panic().unwrap()),
                }
            }
            count
        });
        finish(l, result)
    }
}
