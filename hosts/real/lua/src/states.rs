//! Several Lua states, each on its own thread, with finalizers in Rust, also at the closing of a
//! state.

use std::ffi::{CStr, c_int};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use upcall::{downcall, enter, wait};

use crate::api::*;
use crate::{finish, luaopen_crossing, pop_error, text};

use crate::FIBERS;

static FINALIZED: AtomicI64 = AtomicI64::new(0);

/// A finalizer that waits for a worker's fiber.
pub unsafe extern "C-unwind" fn finalized(l: State) -> c_int {
    let result = enter(|| {
        FINALIZED.fetch_add(wait(FIBERS.spawn(|| 1)).unwrap(), Relaxed);
        0
    });
    // SAFETY: Lua calls this function with a state in use by this thread, and this frame owns
    // nothing.
    unsafe { finish(l, result) }
}

/// `states(count, source)`: runs a program in `count` threads, each with its own state, closed
/// afterwards.
///
/// Returns the number of calls of `finalized`, and the number of threads in which a panic
/// continued.
pub unsafe extern "C-unwind" fn states(l: State) -> c_int {
    // SAFETY: Lua calls this function with a state in use by this thread, and the arguments stay on
    // its stack.
    let (count, source) = unsafe { (luaL_checkinteger(l, 1), text(l, 2)) };
    let result = enter(|| {
        let before = FINALIZED.load(Relaxed);
        let panicked = thread::scope(|scope| {
            let run: Vec<_> = (0..count).map(|_| scope.spawn(|| run(source))).collect();
            run.into_iter().map(|run| run.join().map(Result::unwrap)).filter(Result::is_err).count()
        });
        (FINALIZED.load(Relaxed) - before, panicked as i64)
    });
    // SAFETY: as above; this frame owns nothing.
    unsafe {
        let result = result.map(|(finalized, panicked)| {
            lua_pushinteger(l, finalized);
            lua_pushinteger(l, panicked);
            2
        });
        finish(l, result)
    }
}

/// Runs a program in a new state, and closes the state.
fn run(source: &CStr) -> Result<(), String> {
    // SAFETY: the state belongs to this function. Functions able to raise errors are called by Lua,
    // or cannot fail in practice.
    downcall(|| unsafe {
        let l = luaL_newstate();
        luaL_openlibs(l);
        luaL_requiref(l, c"crossing".as_ptr(), luaopen_crossing, 1);
        let works = luaL_loadstring(l, source.as_ptr()) == OK && lua_pcallk(l, 0, 0, 0, 0, None) == OK;
        let result = if works { Ok(()) } else { Err(pop_error(l)) };
        lua_close(l);
        result
    })
}
