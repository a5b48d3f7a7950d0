//! The small part of Lua's C interface needed by the module. The program around the module has the
//! functions.
//!
//! All of them may raise Lua errors, which skip Rust frames by `longjmp`. Functions built on them
//! may, too.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

/// A Lua thread: a coroutine, or the main thread of a state.
#[repr(C)]
pub struct Thread {
    opaque: [u8; 0],
}

/// The Lua thread in which a function is called, or on which it works.
pub type State = *mut Thread;
/// `lua_CFunction`
pub type Function = unsafe extern "C-unwind" fn(State) -> c_int;
/// `lua_KFunction`
pub type Continuation = unsafe extern "C-unwind" fn(State, c_int, isize) -> c_int;

/// `LUA_MULTRET`
pub const ALL_RESULTS: c_int = -1;
/// `LUA_OK`
pub const OK: c_int = 0;
/// `LUA_YIELD`
pub const YIELD: c_int = 1;

unsafe extern "C-unwind" {
    pub fn lua_callk(l: State, arguments: c_int, results: c_int, context: isize, then: Option<Continuation>);
    pub fn lua_pcallk(
        l: State,
        arguments: c_int,
        results: c_int,
        handler: c_int,
        context: isize,
        then: Option<Continuation>,
    ) -> c_int;
    pub fn lua_yieldk(l: State, results: c_int, context: isize, then: Option<Continuation>) -> c_int;
    pub fn lua_resume(l: State, from: State, arguments: c_int, results: *mut c_int) -> c_int;
    pub fn lua_newthread(l: State) -> State;
    pub fn lua_tothread(l: State, at: c_int) -> State;
    pub fn lua_error(l: State) -> c_int;
    pub fn lua_close(l: State);
    pub fn luaL_newstate() -> State;
    pub fn luaL_openlibs(l: State);
    pub fn luaL_requiref(l: State, name: *const c_char, open: Function, global: c_int);
    pub fn luaL_loadstring(l: State, text: *const c_char) -> c_int;
    pub fn luaL_checkstack(l: State, more: c_int, message: *const c_char);
    pub fn luaL_checkinteger(l: State, at: c_int) -> i64;
    pub fn luaL_checklstring(l: State, at: c_int, length: *mut usize) -> *const c_char;
    pub fn lua_gettop(l: State) -> c_int;
    pub fn lua_settop(l: State, top: c_int);
    pub fn lua_rotate(l: State, at: c_int, by: c_int);
    pub fn lua_xmove(from: State, to: State, count: c_int);
    pub fn lua_pushvalue(l: State, at: c_int);
    pub fn lua_pushboolean(l: State, value: c_int);
    pub fn lua_pushinteger(l: State, value: i64);
    pub fn lua_pushlstring(l: State, text: *const c_char, length: usize) -> *const c_char;
    pub fn lua_pushcclosure(l: State, function: Function, upvalues: c_int);
    pub fn lua_createtable(l: State, items: c_int, fields: c_int);
    pub fn lua_setfield(l: State, table: c_int, name: *const c_char);
}

/// Returns the string argument at `at`.
///
/// # Safety
/// `l` must be a state in use by this thread, and the argument must stay on its stack for `'a`.
pub unsafe fn text<'a>(l: State, at: c_int) -> &'a CStr {
    // SAFETY: as the caller guarantees, `l` is in use by this thread and the argument outlives
    // `'a`. Lua's strings end with 0.
    unsafe { CStr::from_ptr(luaL_checklstring(l, at, ptr::null_mut())) }
}

/// Pushes a string.
///
/// # Safety
/// `l` must be a state in use by this thread.
pub unsafe fn push(l: State, text: &str) {
    // SAFETY: `l` is in use by this thread, as the caller guarantees. Lua copies the text.
    unsafe { lua_pushlstring(l, text.as_ptr().cast(), text.len()) };
}

/// Pushes a function's name and the function into the table on top.
///
/// # Safety
/// `l` must be a state in use by this thread, with a table on top.
pub unsafe fn set(l: State, name: &CStr, function: Function) {
    // SAFETY: `l` is in use by this thread and has a table on top, as the caller guarantees.
    unsafe {
        lua_pushcclosure(l, function, 0);
        lua_setfield(l, -2, name.as_ptr());
    }
}
