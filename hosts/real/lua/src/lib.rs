//! A Lua module with upcalls as its functions, used by `cases.lua`.
//!
//! Lua raises errors and yields by `longjmp`: after an error in a C function, that function never
//! returns. So each function does all of its work inside its upcall, and raises an error only when
//! nothing of the upcall remains. [`finish`] does this. Some functions break the rule on purpose:
//! Lua jumps over their open upcalls and downcalls, and their destructors do not run.

mod api;
mod fibers;
mod states;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use upcall::{StackChoice, UpcallError, downcall, downcall_on_fiber, enter, entry, wait};

use api::*;

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// The number of live [`Local`]s. Those skipped by `longjmp` remain counted.
static LOCALS: AtomicI64 = AtomicI64::new(0);

/// A value owned by a Rust frame.
struct Local;

impl Local {
    fn new() -> Self {
        LOCALS.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        LOCALS.fetch_sub(1, Relaxed);
    }
}

/// Ends a Lua function with its upcall's result: returns the number of results, or raises a Lua
/// error.
///
/// # Safety
/// `l` must be a state in use by this thread, and the caller's frame must own nothing.
unsafe fn finish(l: State, result: Result<c_int, UpcallError>) -> c_int {
    let Err(panicked) = result else { return result.unwrap_or(0) };
    // SAFETY: the caller guarantees that `l` is in use by this thread.
    unsafe { push(l, panicked.message()) };
    drop(panicked);
    // SAFETY: the error is on top. This frame has nothing left to drop, nor has the caller's, as
    // the caller guarantees.
    unsafe { lua_error(l) }
}

/// The stack for an upcall.
#[derive(Clone, Copy)]
struct Stack(StackChoice);

impl Stack {
    /// Takes the name of the stack, the first argument, off the Lua stack.
    ///
    /// # Safety
    /// `l` must be a state in use by this thread, inside a call with arguments.
    unsafe fn of(l: State) -> Self {
        // SAFETY: the caller guarantees that `l` is in use by this thread and has a first argument.
        let choice = match unsafe { text(l, 1) }.to_bytes() {
            b"caller" => StackChoice::Caller,
            b"pooled" => StackChoice::Pooled,
            _ => StackChoice::Auto,
        };
        // SAFETY: as above. The first argument moves to the top, and then off.
        unsafe {
            lua_rotate(l, 1, -1);
            lua_settop(l, -2);
        }
        Self(choice)
    }

    /// Runs the body of a Lua function as an upcall.
    ///
    /// # Safety
    /// The requirements of [`finish`] apply.
    unsafe fn upcall(self, l: State, body: impl FnOnce() -> c_int) -> c_int {
        let result = entry().stack(self.0).enter(body);
        // SAFETY: the caller guarantees the requirements of `finish`.
        unsafe { finish(l, result) }
    }

    /// Calls Lua from the upcall of [`upcall`](Self::upcall), on Lua's own stack.
    ///
    /// `longjmp` works within one stack, and glibc aborts a program that jumps to a frame further
    /// down in memory. From a pooled stack, which is no fiber's, a downcall leads back to Lua's
    /// stack. Otherwise the upcall is on Lua's stack already, which may be a fiber's.
    fn downcall<R>(self, f: impl FnOnce() -> R) -> R {
        if self.0 == StackChoice::Pooled { downcall(f) } else { downcall_on_fiber(f) }
    }
}

/// `call(stack, f, …)`: returns the results of `f`. Its errors and yields jump over upcall and
/// downcall.
unsafe extern "C-unwind" fn call(l: State) -> c_int {
    // SAFETY: Lua calls this function with a state in use by this thread, and the arguments are
    // those of a call.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _skipped = Local::new();
            stack.downcall(|| lua_callk(l, lua_gettop(l) - 1, ALL_RESULTS, 0, None));
            lua_gettop(l)
        })
    }
}

/// `call_on(stack, f, …)`: like `call`, but `f` may yield. Lua then continues in [`called`].
unsafe extern "C-unwind" fn call_on(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _skipped = Local::new();
            stack.downcall(|| lua_callk(l, lua_gettop(l) - 1, ALL_RESULTS, 0, Some(called)));
            lua_gettop(l)
        })
    }
}

/// The rest of a call after a yield over its upcall and downcall, in an upcall of its own.
unsafe extern "C-unwind" fn called(l: State, status: c_int, _: isize) -> c_int {
    let result = enter(|| {
        assert!(status == OK || status == YIELD, "Lua goes on where a call has failed: {status}");
        // SAFETY: Lua calls this function with a state in use by this thread.
        unsafe { lua_gettop(l) }
    });
    // SAFETY: as above; the upcall has returned, and this frame owns nothing.
    unsafe { finish(l, result) }
}

/// `pcall(stack, f, …)`: returns whether `f` returned, and its results or its error.
unsafe extern "C-unwind" fn pcall(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _dropped = Local::new();
            let status = stack.downcall(|| lua_pcallk(l, lua_gettop(l) - 1, ALL_RESULTS, 0, 0, None));
            lua_pushboolean(l, (status == OK).into());
            lua_rotate(l, 1, 1);
            lua_gettop(l)
        })
    }
}

/// `catch(stack, f)`: returns the panic raised at the downcall of `f`, or false; then the result or
/// error of `f`.
unsafe extern "C-unwind" fn catch(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _dropped = Local::new();
            let call = || stack.downcall(|| lua_pcallk(l, 0, 1, 0, 0, None));
            match catch_unwind(AssertUnwindSafe(call)) {
                Ok(_) => lua_pushboolean(l, 0),
                Err(payload) => push(l, payload.downcast_ref::<String>().expect("a panic of `panic`'s")),
            }
            lua_rotate(l, 1, 1);
            2
        })
    }
}

/// `panic(stack, message)`: panics in an upcall.
unsafe extern "C-unwind" fn panic(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        let message = text(l, 1);
        stack.upcall(l, || {
            let _dropped = Local::new();
            panic!("{}", message.to_str().unwrap())
        })
    }
}

/// `throw(stack, error)`: raises a Lua error in the middle of an upcall. The upcall is abandoned.
unsafe extern "C-unwind" fn throw(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _skipped = Local::new();
            stack.downcall(|| lua_error(l))
        })
    }
}

/// `yields(stack, …)`: yields its arguments in the middle of an upcall, and returns those of the
/// resumption.
///
/// The upcall is abandoned.
unsafe extern "C-unwind" fn yields(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _skipped = Local::new();
            stack.downcall(|| lua_yieldk(l, lua_gettop(l), 0, Some(called)))
        })
    }
}

/// `resume(stack, coroutine, …)`: returns whether it yielded or returned, and its values.
unsafe extern "C-unwind" fn resume(l: State) -> c_int {
    // SAFETY: as in `call`; the coroutine stays on the stack.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _dropped = Local::new();
            let (coroutine, mut results) = (lua_tothread(l, 1), 0);
            let arguments = lua_gettop(l) - 1;
            lua_xmove(l, coroutine, arguments);
            let status = stack.downcall(|| lua_resume(coroutine, l, arguments, &mut results));
            let worked = status == OK || status == YIELD;
            lua_pushboolean(l, worked.into());
            let given = if worked { results } else { 1 };
            lua_xmove(coroutine, l, given);
            given + 1
        })
    }
}

/// `doubled(stack, n)`: returns `2 * n`, computed by a worker's fiber.
unsafe extern "C-unwind" fn doubled(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        let n = luaL_checkinteger(l, 1);
        stack.upcall(l, || {
            lua_pushinteger(l, wait(FIBERS.spawn(move || 2 * n)).unwrap());
            1
        })
    }
}

/// `counts()`: returns four counts.
///
/// They are the resident KiB of the process, its open calls according to the snapshot, the pooled
/// stacks in use, and the live locals of Rust frames.
unsafe extern "C-unwind" fn counts(l: State) -> c_int {
    let counted = enter(|| {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        let snapshot = upcall::snapshot();
        let calls = snapshot.threads.iter().map(|thread| thread.calls.len()).sum::<usize>();
        [pages * 4, calls as i64, snapshot.pool.in_use as i64, LOCALS.load(Relaxed)]
    });
    for count in counted.unwrap_or_default() {
        // SAFETY: Lua calls this function with a state in use by this thread.
        unsafe { lua_pushinteger(l, count) };
    }
    4
}

const FUNCTIONS: [(&CStr, Function); 14] = [
    (c"call", call),
    (c"call_on", call_on),
    (c"pcall", pcall),
    (c"catch", catch),
    (c"panic", panic),
    (c"throw", throw),
    (c"yields", yields),
    (c"resume", resume),
    (c"doubled", doubled),
    (c"counts", counts),
    (c"gather", fibers::gather),
    (c"turn", fibers::turn),
    (c"states", states::states),
    (c"finalized", states::finalized),
];

/// Makes the module; called by `require "crossing"`.
///
/// # Safety
/// `l` must be a state in use by this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_crossing(l: State) -> c_int {
    // Panics are part of the cases. An unexpected panic fails its case by the Lua error made from
    // it.
    std::panic::set_hook(Box::new(|_| {}));
    // SAFETY: the caller guarantees that `l` is in use by this thread.
    unsafe {
        lua_createtable(l, 0, FUNCTIONS.len() as c_int);
        for (name, function) in FUNCTIONS {
            set(l, name, function);
        }
    }
    1
}

/// The message of Lua's error if there is no memory for a larger Lua stack.
const TOO_MANY: *const c_char = c"too many".as_ptr();

/// Takes the error off the top of a state's stack.
///
/// # Safety
/// `l` must be a state in use by this thread, with a string on top.
unsafe fn pop_error(l: State) -> String {
    // SAFETY: the caller guarantees that `l` is in use by this thread and has a string on top.
    unsafe {
        let error = text(l, -1).to_string_lossy().into_owned();
        lua_settop(l, -2);
        error
    }
}
