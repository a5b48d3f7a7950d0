//! The Rust library that the C programs in `c/` link: small functions that exercise one thing each. `c/guest.h` is
//! their C side.

mod callbacks;
mod detach;
mod exceptions;
mod exported;
mod interrupted;
mod model;
mod moved;
mod tools;
mod waiting;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::{current, stack_pointer};
use upcall::{Panicked, StackChoice, downcall, enter, entry};

pub use callbacks::*;
pub use detach::*;
pub use exceptions::*;
pub use exported::*;
pub use interrupted::*;
pub use model::*;
pub use moved::*;
pub use tools::*;
pub use waiting::*;

/// A C function and its argument.
type Callback = extern "C" fn(*mut c_void) -> c_int;

/// What a panic or a refusal answers.
const FAILED: c_int = -1;

#[inline(always)]
fn or_failed(result: Result<c_int, Panicked>) -> c_int {
    result.unwrap_or(FAILED)
}

/// An empty upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_empty() -> c_int {
    or_failed(enter(|| 0))
}

/// `x + 1`, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_increment(x: c_int) -> c_int {
    or_failed(enter(|| x + 1))
}

/// An upcall that makes a downcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall(|| callback(argument))))
}

/// The same on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_pooled(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| callback(argument))))
}

/// The same on the caller's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_caller(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Caller).enter(|| downcall(|| callback(argument))))
}

/// A downcall that is in no upcall of its own.
#[unsafe(no_mangle)]
pub extern "C" fn guest_downcall(callback: Callback, argument: *mut c_void) -> c_int {
    downcall(|| callback(argument))
}

/// An upcall that calls C as a plain function, on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_plain_pooled(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| callback(argument)))
}

/// An upcall that calls C as a plain function, on the stack that the upcall runs on.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_plain(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| callback(argument)))
}

/// An upcall that calls C as a plain function, and then makes a downcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_plain_then(plain: Callback, then: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| plain(argument) + downcall(|| then(argument))))
}

/// An upcall on a pooled stack that uses about `bytes` of it and then makes a downcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_and_call(bytes: usize, callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        let used = c_int::from(use_stack(bytes) == 0);
        used + downcall(|| callback(argument))
    }))
}

/// An upcall that panics with `message`.
///
/// # Safety
/// `message` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_panic(message: *const c_char) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller's promise.
        let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
        panic!("{message}")
    }))
}

/// A payload that only its own type tells from another.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb {} panics when dropped", self.0);
    }
}

/// An upcall that panics with a payload that panics when it is dropped.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_with_bomb() -> c_int {
    or_failed(enter(|| std::panic::panic_any(Bomb(7))))
}

/// A payload whose destructor needs stack.
struct Heavy;

impl Drop for Heavy {
    fn drop(&mut self) {
        use_stack(100 << 10);
        HEAVIES_DROPPED.fetch_add(1, Relaxed);
    }
}

static HEAVIES_DROPPED: AtomicI32 = AtomicI32::new(0);

/// An upcall that panics with a payload whose destructor needs 100 KiB of stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_with_heavy() -> c_int {
    or_failed(enter(|| std::panic::panic_any(Heavy)))
}

/// How many of these were dropped.
#[unsafe(no_mangle)]
pub extern "C" fn guest_heavies_dropped() -> c_int {
    HEAVIES_DROPPED.load(Relaxed)
}

/// An upcall whose local panics while another panic unwinds, inside a destructor that catches it.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_while_dropping(callback: Callback, argument: *mut c_void) -> c_int {
    struct CallsC(Callback, *mut c_void);
    impl Drop for CallsC {
        fn drop(&mut self) {
            // The callback's upcall panics; raising that here, in the middle of an unwinding, would abort.
            downcall(|| (self.0)(self.1));
        }
    }
    or_failed(enter(|| {
        let _calls_c = CallsC(callback, argument);
        panic!("the first panic")
    }))
}

/// A downcall in an upcall that catches what is raised there: writes its message into `buffer`. Returns what C returned, or -2 after a
/// panic with a message, -3 after one with another payload.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_catch(
    callback: Callback,
    argument: *mut c_void,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { catch(|| downcall(|| callback(argument)), buffer, size) }
}

/// An upcall that catches what `call` raises.
///
/// # Safety
/// `buffer` is valid for writing `size` bytes.
unsafe fn catch(call: impl FnOnce() -> c_int, buffer: *mut c_char, size: usize) -> c_int {
    or_failed(enter(|| {
        let caught = catch_unwind(AssertUnwindSafe(call));
        let Err(payload) = caught else { return caught.unwrap() };
        let Some(message) = payload.downcast_ref::<String>() else {
            std::mem::forget(payload.downcast::<Bomb>().expect("a String or a Bomb"));
            return -3;
        };
        let bytes = &message.as_bytes()[..message.len().min(size - 1)];
        // SAFETY: the caller's promise; one byte is left for the 0.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer, bytes.len());
            buffer.add(bytes.len()).write(0);
        }
        -2
    }))
}

/// Which stack an upcall runs on.
#[repr(C)]
pub struct GuestWhere {
    low: usize,
    high: usize,
    sp: usize,
    exact: c_int,
    own: c_int,
}

/// The bounds of the caller's own stack, as a plain function sees them.
///
/// # Safety
/// `answer` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_bounds(answer: *mut GuestWhere) {
    // SAFETY: the caller's promise.
    unsafe { answer.write(here()) };
}

/// Registers a host's stack; `NULL` if it is refused.
///
/// # Safety
/// As for `stackbounds::register`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_register(low: *mut u8, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    match unsafe { stackbounds::register(low, size) } {
        Ok(registration) => Box::into_raw(Box::new(registration)).cast(),
        Err(_) => std::ptr::null_mut(),
    }
}

/// Unregisters it.
///
/// # Safety
/// `registration` came from `guest_register` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_unregister(registration: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(registration.cast::<stackbounds::Registration>()) });
}

fn here() -> GuestWhere {
    let (stack, sp) = (current(), stack_pointer());
    assert!(stack.contains(sp), "bounds that do not contain SP");
    GuestWhere {
        low: stack.low(),
        high: stack.high(),
        sp,
        exact: c_int::from(stack.is_exact()),
        own: c_int::from(stackbounds::thread() == Some(stack)),
    }
}

/// Reports where an upcall runs.
///
/// # Safety
/// `answer` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_where(answer: *mut GuestWhere) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller's promise.
        unsafe { answer.write(here()) };
        0
    }))
}

/// The same for an upcall on the caller's stack that needs `min_stack` bytes.
///
/// # Safety
/// `answer` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_where_caller(answer: *mut GuestWhere, min_stack: usize) -> c_int {
    or_failed(entry().stack(StackChoice::Caller).min_stack(min_stack).enter(|| {
        // SAFETY: the caller's promise.
        unsafe { answer.write(here()) };
        0
    }))
}

/// Uses about `bytes` of stack, page by page.
#[inline(never)]
fn use_stack(bytes: usize) -> usize {
    let page = black_box([1u8; 1024]);
    let deeper = if bytes > 2048 { use_stack(bytes - 2048) } else { 0 };
    deeper + usize::from(page[bytes % 1024])
}

/// An upcall that uses about `bytes` of stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_stack(bytes: usize) -> c_int {
    or_failed(enter(|| c_int::from(use_stack(bytes) == 0)))
}

/// An upcall that asks for `min_stack` bytes of stack and uses `bytes`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_sized_stack(min_stack: usize, bytes: usize) -> c_int {
    or_failed(entry().min_stack(min_stack).enter(|| c_int::from(use_stack(bytes) == 0)))
}

/// Calls back with `bytes` of stack below, by `with_stack`, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_with_stack(bytes: usize, callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| upcall::with_stack(bytes, || downcall(|| callback(argument)))))
}

/// Overflows the pooled stack that the upcall runs on. Reports the bounds first.
///
/// # Safety
/// `answer` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_overflow(answer: *mut GuestWhere) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        // SAFETY: the caller's promise.
        unsafe { answer.write(here()) };
        c_int::from(use_stack(1 << 30) == 0)
    }))
}

/// How many threads are attached.
#[unsafe(no_mangle)]
pub extern "C" fn guest_attached_threads() -> c_int {
    upcall::snapshot().threads.len() as c_int
}

/// How many calls of this thread are open, both ways.
#[unsafe(no_mangle)]
pub extern "C" fn guest_open_calls() -> c_int {
    let snapshot = upcall::snapshot();
    snapshot.threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.calls.len() as c_int)
}

/// How many pooled stacks are handed out.
#[unsafe(no_mangle)]
pub extern "C" fn guest_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}
