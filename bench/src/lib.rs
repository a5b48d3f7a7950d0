//! The Rust library that the C programs in `c/` link: empty functions, each called in one way. `c/guest.h` is their C side.

use std::ffi::{c_int, c_long, c_void};
use std::hint::black_box;
use std::panic::catch_unwind;

use upcall::{Entry, StackChoice, downcall, enter, entry};

/// A C function and its argument.
type Callback = extern "C" fn(*mut c_void) -> c_int;

/// An empty C function.
type Function = extern "C" fn() -> c_int;

/// What a panic or a refusal answers.
const FAILED: c_int = -1;

/// What `stacker` is asked for: as much as `upcall` promises by default, so that the two do the same.
const MIN_STACK: usize = 128 << 10;

/// Nothing: the bare call that others are compared with.
#[unsafe(no_mangle)]
pub extern "C" fn bench_bare() -> c_int {
    0
}

/// An empty upcall.
#[unsafe(no_mangle)]
pub extern "C" fn bench_upcall() -> c_int {
    enter(|| 0).unwrap_or(FAILED)
}

/// What a careful author writes by hand.
#[unsafe(no_mangle)]
pub extern "C" fn bench_catch_unwind() -> c_int {
    catch_unwind(|| 0).unwrap_or(FAILED)
}

/// The same with room enough on the thread's own stack. On any other stack `stacker` sees no room, or room that is not there.
#[unsafe(no_mangle)]
pub extern "C" fn bench_stacker() -> c_int {
    catch_unwind(|| stacker::maybe_grow(MIN_STACK, 2 * MIN_STACK, || 0)).unwrap_or(FAILED)
}

/// A body that the compiler must expect to panic: an empty one lets it leave out what catches panics.
#[inline(never)]
fn body() -> c_int {
    assert!(!black_box(false));
    0
}

/// The body in a bare call.
#[unsafe(no_mangle)]
pub extern "C" fn bench_body_bare() -> c_int {
    body()
}

/// The body in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn bench_body_upcall() -> c_int {
    enter(body).unwrap_or(FAILED)
}

/// The body in `catch_unwind` by hand.
#[unsafe(no_mangle)]
pub extern "C" fn bench_body_catch_unwind() -> c_int {
    catch_unwind(body).unwrap_or(FAILED)
}

/// An upcall that makes a downcall.
#[unsafe(no_mangle)]
pub extern "C" fn bench_call(callback: Callback, argument: *mut c_void) -> c_int {
    enter(|| downcall(|| callback(argument))).unwrap_or(FAILED)
}

/// A bare call that makes a bare call.
#[unsafe(no_mangle)]
pub extern "C" fn bench_call_bare(callback: Callback, argument: *mut c_void) -> c_int {
    callback(argument)
}

fn downcalls(entry: Entry, function: Function, count: c_long) {
    let called = entry.enter(|| {
        for _ in 0..count {
            downcall(|| function());
        }
    });
    called.expect("no panic and no refusal");
}

/// `count` downcalls of `function` inside one upcall on the caller's stack.
#[unsafe(no_mangle)]
pub extern "C" fn bench_downcalls(function: Function, count: c_long) {
    downcalls(entry(), function, count);
}

/// The same inside an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn bench_downcalls_pooled(function: Function, count: c_long) {
    downcalls(entry().stack(StackChoice::Pooled), function, count);
}

/// `count` bare calls of `function` by a loop in Rust.
#[unsafe(no_mangle)]
pub extern "C" fn bench_downcalls_bare(function: Function, count: c_long) {
    for _ in 0..count {
        function();
    }
}

/// Describes a stack for the rest of the process's life.
///
/// # Safety
/// As for [`stackbounds::register`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bench_register(low: *mut u8, size: usize) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { stackbounds::register(low, size) } {
        Ok(registration) => {
            std::mem::forget(registration);
            0
        }
        Err(_) => FAILED,
    }
}

/// The low end of the described stack that `address` is on, 0 if it is on none.
#[unsafe(no_mangle)]
pub extern "C" fn bench_lookup(address: usize) -> usize {
    let stack = stackbounds::at(address);
    if stack.is_exact() { stack.low() } else { 0 }
}

/// What a lookup costs without looking up.
#[unsafe(no_mangle)]
pub extern "C" fn bench_lookup_bare(address: usize) -> usize {
    address
}
