//! A Lua module whose functions are upcalls; `cases.lua` uses it.
//!
//! Lua's errors and yields are `longjmp`: a function that Lua raises an error in never returns. So a function does all it does inside its upcall, and
//! raises an error when nothing of the upcall is left; that is what [`finish`] is for. Some functions break that rule on purpose: they have Lua jump
//! over upcalls and downcalls that are open, whose destructors do not run then.

mod api;
mod fibers;
mod states;

use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use upcall::{Panicked, StackChoice, downcall, downcall_on_fiber, enter, entry, spawn, wait};

use api::*;

/// Values of [`Local`] that are there; those that `longjmp` skipped stay.
static LOCALS: AtomicI64 = AtomicI64::new(0);

/// What a Rust frame owns.
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

/// What a Lua function returns whose upcall gave this: the number of its results, or never, with a Lua error.
///
/// # Safety
/// `l` is a state in use by this thread, and the caller's frame owns nothing.
unsafe fn finish(l: State, result: Result<c_int, Panicked>) -> c_int {
    let Err(panicked) = result else { return result.unwrap_or(0) };
    // SAFETY: the caller's promise.
    unsafe { push(l, panicked.message()) };
    drop(panicked);
    // SAFETY: what is to be raised is on top, and this frame has nothing left to drop.
    unsafe { lua_error(l) }
}

/// The stack that an upcall is to run on.
#[derive(Clone, Copy)]
struct Stack(StackChoice);

impl Stack {
    /// The one that the first argument names, which is taken away.
    ///
    /// # Safety
    /// `l` is a state in use by this thread, inside a call with arguments.
    unsafe fn of(l: State) -> Self {
        // SAFETY: the caller's promise.
        let choice = match unsafe { text(l, 1) }.to_bytes() {
            b"caller" => StackChoice::Caller,
            b"pooled" => StackChoice::Pooled,
            _ => StackChoice::Auto,
        };
        // SAFETY: the same: the first argument goes to the top, and off.
        unsafe {
            lua_rotate(l, 1, -1);
            lua_settop(l, -2);
        }
        Self(choice)
    }

    /// Runs a Lua function's body as an upcall.
    ///
    /// # Safety
    /// As for [`finish`].
    unsafe fn upcall(self, l: State, body: impl FnOnce() -> c_int) -> c_int {
        let result = entry().stack(self.0).enter(body);
        // SAFETY: the caller's promise.
        unsafe { finish(l, result) }
    }

    /// Calls Lua from such an upcall, on the stack that Lua is on: `longjmp` is for one stack, and glibc stops programs that jump to a frame further down
    /// in memory. From a pooled stack, which is no fiber's, a downcall leads back there; otherwise it is this stack, which may be a fiber's.
    fn downcall<R>(self, f: impl FnOnce() -> R) -> R {
        if self.0 == StackChoice::Pooled { downcall(f) } else { downcall_on_fiber(f) }
    }
}

/// `call(stack, f, …)`: what `f` returns. Its errors and yields jump over the upcall and the downcall.
unsafe extern "C-unwind" fn call(l: State) -> c_int {
    // SAFETY: Lua calls this with a state in use, and the arguments are those of a call.
    unsafe {
        let stack = Stack::of(l);
        stack.upcall(l, || {
            let _skipped = Local::new();
            stack.downcall(|| lua_callk(l, lua_gettop(l) - 1, ALL_RESULTS, 0, None));
            lua_gettop(l)
        })
    }
}

/// `call_on(stack, f, …)`: the same, but that `f` may yield: Lua goes on in [`called`] then.
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

/// The rest of a call whose upcall and downcall a yield has jumped over, in an upcall of its own.
unsafe extern "C-unwind" fn called(l: State, status: c_int, _: isize) -> c_int {
    let result = enter(|| {
        assert!(status == OK || status == YIELD, "Lua goes on where a call has failed: {status}");
        // SAFETY: Lua calls this with a state in use.
        unsafe { lua_gettop(l) }
    });
    // SAFETY: the same; this frame owns nothing.
    unsafe { finish(l, result) }
}

/// `pcall(stack, f, …)`: whether `f` returned, and what it returned or raised.
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

/// `catch(stack, f)`: the panic that was raised at the downcall of `f`, or nothing; and what `f` returned or raised.
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

/// `panic(stack, message)`
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

/// `throw(stack, error)`: raises a Lua error in the middle of an upcall, which is left.
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

/// `yields(stack, …)`: yields its arguments in the middle of an upcall, which is left; returns what it is resumed with.
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

/// `resume(stack, coroutine, …)`: whether it yielded or returned, and what it gave.
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

/// `doubled(stack, n)`: waits for a worker's fiber.
unsafe extern "C-unwind" fn doubled(l: State) -> c_int {
    // SAFETY: as in `call`.
    unsafe {
        let stack = Stack::of(l);
        let n = luaL_checkinteger(l, 1);
        stack.upcall(l, || {
            lua_pushinteger(l, wait(spawn(move || 2 * n)).unwrap());
            1
        })
    }
}

/// `counts()`: KiB of the process that are resident, downcalls that are noted as open, pooled stacks in use, and locals of Rust's frames.
unsafe extern "C-unwind" fn counts(l: State) -> c_int {
    let counted = enter(|| {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: i64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        let snapshot = upcall::snapshot();
        let calls = snapshot.threads.iter().map(|thread| thread.calls.len()).sum::<usize>();
        [pages * 4, calls as i64, snapshot.pool.in_use as i64, LOCALS.load(Relaxed)]
    });
    for count in counted.unwrap_or_default() {
        // SAFETY: Lua calls this with a state in use.
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

/// What `require "crossing"` calls.
///
/// # Safety
/// `l` is a state in use by this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn luaopen_crossing(l: State) -> c_int {
    // Panics are what the cases are about; whoever expects none fails by the error that it becomes.
    std::panic::set_hook(Box::new(|_| {}));
    // SAFETY: the caller's promise.
    unsafe {
        lua_createtable(l, 0, FUNCTIONS.len() as c_int);
        for (name, function) in FUNCTIONS {
            set(l, name, function);
        }
    }
    1
}

/// The message of an error that Lua has no memory for a larger stack.
const TOO_MANY: *const c_char = c"too many".as_ptr();

/// The error on top of a state, which is taken off.
///
/// # Safety
/// `l` is a state in use by this thread, with a string on top.
unsafe fn pop_error(l: State) -> String {
    // SAFETY: the caller's promise.
    unsafe {
        let error = text(l, -1).to_string_lossy().into_owned();
        lua_settop(l, -2);
        error
    }
}
