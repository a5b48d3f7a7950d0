//! The little of Lua's C interface that the module needs. The program that loads the module has it.
//!
//! All of it may raise Lua errors, which leave Rust's frames by `longjmp`, and so may functions written with it.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

/// A Lua thread: a coroutine, or a state's main one.
#[repr(C)]
pub struct Thread {
    opaque: [u8; 0],
}

/// Which Lua thread a function is called in, or is to work on.
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

/// The string argument at `at`.
///
/// # Safety
/// `l` is a state in use by this thread, and the argument stays on its stack for `'a`.
pub unsafe fn text<'a>(l: State, at: c_int) -> &'a CStr {
    // SAFETY: the caller's promise; strings of Lua's end with a zero.
    unsafe { CStr::from_ptr(luaL_checklstring(l, at, ptr::null_mut())) }
}

/// Pushes a string.
///
/// # Safety
/// `l` is a state in use by this thread.
pub unsafe fn push(l: State, text: &str) {
    // SAFETY: the caller's promise; Lua copies the text.
    unsafe { lua_pushlstring(l, text.as_ptr().cast(), text.len()) };
}

/// Pushes a function's name and the function into the table on top.
///
/// # Safety
/// `l` is a state in use by this thread, with a table on top.
pub unsafe fn set(l: State, name: &CStr, function: Function) {
    // SAFETY: the caller's promise.
    unsafe {
        lua_pushcclosure(l, function, 0);
        lua_setfield(l, -2, name.as_ptr());
    }
}
