//! Several Lua states, each on a thread of its own, with finalizers in Rust, also when a state is closed.

use std::ffi::{CStr, c_int};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use upcall::{downcall, enter, spawn, wait};

use crate::api::*;
use crate::{finish, luaopen_crossing, pop_error, text};

static FINALIZED: AtomicI64 = AtomicI64::new(0);

/// A finalizer, which waits for a worker's fiber.
pub unsafe extern "C-unwind" fn finalized(l: State) -> c_int {
    let result = enter(|| {
        FINALIZED.fetch_add(wait(spawn(|| 1)).unwrap(), Relaxed);
        0
    });
    // SAFETY: Lua calls this with a state in use, and this frame owns nothing.
    unsafe { finish(l, result) }
}

/// `states(count, source)`: has `count` threads run a program, each in a state of its own, and close it; returns how often `finalized` was called, and in how
/// many of the threads a panic went on.
pub unsafe extern "C-unwind" fn states(l: State) -> c_int {
    // SAFETY: Lua calls this with a state in use, and the arguments stay on its stack.
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

/// Runs a program in a state of its own, which is closed then.
fn run(source: &CStr) -> Result<(), String> {
    // SAFETY: the state is this function's own. What may raise an error is called by Lua, or as good as cannot fail.
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
