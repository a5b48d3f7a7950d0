//! Lua threads of one state that wait at the same time, each on its own fiber.
//!
//! Lua permits this. Its rule is that one OS thread at a time uses a state, and that the Lua thread
//! changes only while a C function runs.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::task::{Poll, Waker};

use upcall::{downcall_on_fiber, enter, wait};

use crate::api::*;
use crate::{TOO_MANY, finish, pop_error};

use crate::FIBERS;

thread_local! {
    static TURN: Cell<i64> = const { Cell::new(1) };
    static WAITING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// `turn(n)`: waits for the turns of all smaller numbers.
pub unsafe extern "C-unwind" fn turn(l: State) -> c_int {
    // SAFETY: Lua calls this function with a state in use by this thread.
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
    // SAFETY: the upcall has returned, and this frame owns nothing.
    unsafe { finish(l, result) }
}

/// `gather(…)`: calls the functions all at once, each on its own fiber and Lua thread. Returns
/// their results.
pub unsafe extern "C-unwind" fn gather(l: State) -> c_int {
    // SAFETY: Lua calls this function with a state in use by this thread. The Lua threads stay on
    // the state's stack until their fibers have ended, and only its own fiber uses each of them.
    unsafe {
        let count = lua_gettop(l);
        luaL_checkstack(l, 2 * count, TOO_MANY);
        let result = enter(|| {
            TURN.set(1);
            let runtime = FIBERS.local_runtime().unwrap();
            let begin = |function| {
                let thread = lua_newthread(l);
                lua_pushvalue(l, function);
                lua_xmove(l, thread, 1);
                let fiber = move || downcall_on_fiber(|| lua_pcallk(thread, 0, 1, 0, 0, None));
                // Lua runs on this stack, and upcalls run in place on it.
                (thread, runtime.spawn_local_with(FIBERS.builder().stack_size(512 << 10), fiber))
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
