//! The Rust library of the C programs in `c/`: empty functions, one for each kind of call.
//!
//! `c/guest.h` declares them for C.

use std::ffi::{c_int, c_long, c_void};
use std::hint::black_box;
use std::panic::catch_unwind;

use upcall::{Entry, StackChoice, downcall, enter, entry};

/// A C function with one argument.
type Callback = extern "C" fn(*mut c_void) -> c_int;

/// An empty C function.
type Function = extern "C" fn() -> c_int;

/// The answer after a panic or a refusal.
const FAILED: c_int = -1;

/// The bytes requested from `stacker`: as many as `upcall` promises by default, for the same work.
const MIN_STACK: usize = 256 << 10;

/// A bare call of an empty function, for comparison.
#[unsafe(no_mangle)]
pub extern "C" fn bench_bare() -> c_int {
    0
}

/// An empty upcall.
#[unsafe(no_mangle)]
pub extern "C" fn bench_upcall() -> c_int {
    enter(|| 0).unwrap_or(FAILED)
}

/// An empty body in `catch_unwind`, as a careful author writes it by hand.
#[unsafe(no_mangle)]
pub extern "C" fn bench_catch_unwind() -> c_int {
    catch_unwind(|| 0).unwrap_or(FAILED)
}

/// An empty body in `catch_unwind` and `stacker`, with enough room on the thread's own stack.
///
/// On any other stack, `stacker` finds no room, or room that does not exist.
#[unsafe(no_mangle)]
pub extern "C" fn bench_stacker() -> c_int {
    catch_unwind(|| stacker::maybe_grow(MIN_STACK, 2 * MIN_STACK, || 0)).unwrap_or(FAILED)
}

/// A body with a possible panic, as far as the compiler knows.
///
/// For an empty body, the compiler would omit the code that catches panics.
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

/// Makes `count` downcalls of `function` inside one upcall on the caller's stack.
#[unsafe(no_mangle)]
pub extern "C" fn bench_downcalls(function: Function, count: c_long) {
    downcalls(entry(), function, count);
}

/// Makes `count` downcalls of `function` inside one upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn bench_downcalls_pooled(function: Function, count: c_long) {
    downcalls(entry().stack(StackChoice::Pooled), function, count);
}

/// Makes `count` bare calls of `function`, by a loop in Rust.
#[unsafe(no_mangle)]
pub extern "C" fn bench_downcalls_bare(function: Function, count: c_long) {
    for _ in 0..count {
        function();
    }
}

/// Registers the `size` bytes at `low` as a stack, for the rest of the process's life.
///
/// Returns 0, or -1 on failure.
///
/// # Safety
/// The requirements of [`stackbounds::register`] apply. The memory is never unregistered, so it
/// must stay a stack until the process ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bench_register(low: *mut u8, size: usize) -> c_int {
    // SAFETY: the caller guarantees the requirements of `register`, for the rest of the process's
    // life.
    match unsafe { stackbounds::register(low, size) } {
        Ok(registration) => {
            std::mem::forget(registration);
            0
        }
        Err(_) => FAILED,
    }
}

/// Returns the low end of the registered stack at `address`, or 0 if there is none.
#[unsafe(no_mangle)]
pub extern "C" fn bench_lookup(address: usize) -> usize {
    let stack = stackbounds::at(address);
    if stack.is_exact() { stack.low() } else { 0 }
}

/// Returns its argument: the cost of a lookup's call, without the lookup.
#[unsafe(no_mangle)]
pub extern "C" fn bench_lookup_bare(address: usize) -> usize {
    address
}
