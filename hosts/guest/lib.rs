//! The Rust library linked by the C programs in `c/`: small functions, each exercising one thing.
//! `c/guest.h` is their C side.

mod callbacks;
mod detach;
mod exceptions;
mod exported;
mod interrupted;
mod jumped;
mod memory;
mod model;
mod moved;
mod room;
mod suspended;
mod tasks;
mod tools;
#[cfg(unix)]
mod unix;
mod waiting;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::{current, stack_pointer};
use upcall::{Refusal, StackChoice, UpcallError, downcall, enter, entry, panic_is_pending};

pub use callbacks::*;
pub use detach::*;
pub use exceptions::*;
pub use exported::*;
pub use interrupted::*;
pub use model::*;
pub use moved::*;
pub use suspended::*;
pub use tools::*;
#[cfg(unix)]
pub use unix::*;
pub use waiting::*;

// SAFETY: no code on fibers borrows a thread-local across a wait, and no initialiser of a
// thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(fibers = FIBERS);

/// A C function and its argument.
type Callback = extern "C" fn(*mut c_void) -> c_int;

/// Returned to C after a panic or a refusal.
const FAILED: c_int = -1;

#[inline(always)]
pub(crate) fn or_failed(result: Result<c_int, UpcallError>) -> c_int {
    result.unwrap_or(FAILED)
}

/// Makes an upcall that does nothing. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_empty() -> c_int {
    or_failed(enter(|| 0))
}

/// Returns `x + 1`, computed in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_increment(x: c_int) -> c_int {
    or_failed(enter(|| x + 1))
}

/// Makes a downcall to `callback` in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| downcall(|| callback(argument))))
}

/// Makes a downcall to `callback` in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_pooled(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| downcall(|| callback(argument))))
}

/// Makes a downcall to `callback` in an upcall on the caller's stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_caller(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Caller).enter(|| downcall(|| callback(argument))))
}

/// Makes a downcall to `callback` without an upcall of its own.
#[unsafe(no_mangle)]
pub extern "C" fn guest_downcall(callback: Callback, argument: *mut c_void) -> c_int {
    downcall(|| callback(argument))
}

/// Calls C as a plain function, without a downcall, in an upcall on a pooled stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_plain_pooled(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| callback(argument)))
}

/// Calls C as a plain function, without a downcall, on the stack of an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_plain(callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| callback(argument)))
}

/// Calls `plain` as a plain function and then makes a downcall to `then`, in one upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_call_plain_then(plain: Callback, then: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| plain(argument) + downcall(|| then(argument))))
}

/// Uses about `bytes` of a pooled stack, and then makes a downcall, in one upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_and_call(bytes: usize, callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        let used = c_int::from(use_stack(bytes) == 0);
        used + downcall(|| callback(argument))
    }))
}

/// Panics with `message` in an upcall.
///
/// # Safety
/// `message` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_panic(message: *const c_char) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller guarantees that `message` is a C string.
        let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
        panic!("{message}")
    }))
}

/// Panics with `message` in an upcall with `keep_panic`: no enclosing downcall raises the panic
/// again.
///
/// # Safety
/// `message` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_panic_kept(message: *const c_char) -> c_int {
    or_failed(entry().keep_panic().enter(|| {
        // SAFETY: the caller guarantees that `message` is a C string.
        let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
        panic!("{message}")
    }))
}

/// Returns 1 from an upcall, or -2 if the upcall is refused after a panic.
#[upcall::export(on_panic = |error| if error.refusal() == Some(&Refusal::AfterPanic) { -2 } else { -1 }, refuse_after_panic)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_serves() -> c_int {
    1
}

/// Returns 1 if a panic is pending at the enclosing downcall, otherwise 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_waits() -> c_int {
    c_int::from(panic_is_pending())
}

/// A payload recognised by its own type only. Its destructor panics.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("bomb {} panics when dropped", self.0);
    }
}

/// Panics in an upcall, with a payload that panics when it is dropped.
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

/// Panics in an upcall, with a payload whose destructor needs 100 KiB of stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_with_heavy() -> c_int {
    or_failed(enter(|| std::panic::panic_any(Heavy)))
}

/// Returns the number of dropped payloads of `guest_panic_with_heavy`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_heavies_dropped() -> c_int {
    HEAVIES_DROPPED.load(Relaxed)
}

/// Makes a downcall from a destructor, while a panic of the same upcall unwinds.
#[unsafe(no_mangle)]
pub extern "C" fn guest_panic_while_dropping(callback: Callback, argument: *mut c_void) -> c_int {
    struct CallsC(Callback, *mut c_void);
    impl Drop for CallsC {
        fn drop(&mut self) {
            // The callback's upcall panics. Raising that panic here, during an unwinding, would
            // abort.
            downcall(|| (self.0)(self.1));
        }
    }
    or_failed(enter(|| {
        let _calls_c = CallsC(callback, argument);
        panic!("the first panic")
    }))
}

/// Makes a downcall in an upcall and catches the panic raised at its return.
///
/// Writes the panic's message into `buffer`. Returns C's own value, -2 after a panic with a
/// message, -3 after a panic with another payload, or -4 after an interruption.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes, and `size` must not be 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_catch(
    callback: Callback,
    argument: *mut c_void,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the caller guarantees that `buffer` is valid for writes of `size` bytes.
    unsafe { catch(|| downcall(|| callback(argument)), buffer, size) }
}

/// Runs `call` in an upcall and catches the panic raised by it.
///
/// # Safety
/// `buffer` must be valid for writes of `size` bytes, and `size` must not be 0.
unsafe fn catch(call: impl FnOnce() -> c_int, buffer: *mut c_char, size: usize) -> c_int {
    or_failed(enter(|| {
        let caught = catch_unwind(AssertUnwindSafe(call));
        let Err(payload) = caught else { return caught.unwrap() };
        if payload.is::<upcall::Interrupted>() || payload.is::<upcall::coroutines::Killed>() {
            return -4;
        }
        let Some(message) = payload.downcast_ref::<String>() else {
            std::mem::forget(payload.downcast::<Bomb>().expect("a String or a Bomb"));
            return -3;
        };
        let bytes = &message.as_bytes()[..message.len().min(size - 1)];
        // SAFETY: the caller guarantees that `buffer` is valid for writes of `size` bytes. At most
        // `size - 1` bytes are copied, so the final 0 fits.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer, bytes.len());
            buffer.add(bytes.len()).write(0);
        }
        -2
    }))
}

/// The stack of an upcall, as C reads it.
#[repr(C)]
pub struct GuestWhere {
    low: usize,
    high: usize,
    sp: usize,
    exact: c_int,
    own: c_int,
}

/// Writes the bounds of the caller's stack, without an upcall.
///
/// # Safety
/// `answer` must be valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_bounds(answer: *mut GuestWhere) {
    // SAFETY: the caller guarantees that `answer` is valid for writes.
    unsafe { answer.write(here()) };
}

/// Registers a stack of the host. Returns `NULL` if the registration is refused.
///
/// # Safety
/// The requirements of `stackbounds::register` apply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_register(low: *mut u8, size: usize) -> *mut c_void {
    // SAFETY: the caller guarantees the requirements of `stackbounds::register`.
    match unsafe { stackbounds::register(low, size) } {
        Ok(registration) => Box::into_raw(Box::new(registration)).cast(),
        Err(_) => std::ptr::null_mut(),
    }
}

/// Ends a registration made by `guest_register`.
///
/// # Safety
/// `registration` must come from `guest_register`, and must not be used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_unregister(registration: *mut c_void) {
    // SAFETY: the caller guarantees that `registration` is a box from `guest_register`, passed
    // once.
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

/// Writes the stack of an upcall.
///
/// # Safety
/// `answer` must be valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_where(answer: *mut GuestWhere) -> c_int {
    or_failed(enter(|| {
        // SAFETY: the caller guarantees that `answer` is valid for writes.
        unsafe { answer.write(here()) };
        0
    }))
}

/// Writes the stack of an upcall that insists on the caller's stack and on `min_stack` bytes.
///
/// # Safety
/// `answer` must be valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_where_caller(answer: *mut GuestWhere, min_stack: usize) -> c_int {
    or_failed(entry().stack(StackChoice::Caller).min_stack(min_stack).enter(|| {
        // SAFETY: the caller guarantees that `answer` is valid for writes.
        unsafe { answer.write(here()) };
        0
    }))
}

/// Uses about `bytes` of stack, touching every page.
#[inline(never)]
pub(crate) fn use_stack(bytes: usize) -> usize {
    let page = black_box([1u8; 1024]);
    let deeper = if bytes > 2048 { use_stack(bytes - 2048) } else { 0 };
    deeper + usize::from(page[bytes % 1024])
}

/// Uses about `bytes` of stack in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_stack(bytes: usize) -> c_int {
    or_failed(enter(|| c_int::from(use_stack(bytes) == 0)))
}

/// Uses `bytes` of stack in an upcall that asks for `min_stack` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn guest_use_sized_stack(min_stack: usize, bytes: usize) -> c_int {
    or_failed(entry().min_stack(min_stack).enter(|| c_int::from(use_stack(bytes) == 0)))
}

/// Calls back from `with_stack`, with `bytes` of stack below, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_with_stack(bytes: usize, callback: Callback, argument: *mut c_void) -> c_int {
    or_failed(enter(|| upcall::with_stack(bytes, || downcall(|| callback(argument)))))
}

/// Writes the bounds of the pooled stack of an upcall, and then overflows that stack.
///
/// # Safety
/// `answer` must be valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_overflow(answer: *mut GuestWhere) -> c_int {
    or_failed(entry().stack(StackChoice::Pooled).enter(|| {
        // SAFETY: the caller guarantees that `answer` is valid for writes.
        unsafe { answer.write(here()) };
        c_int::from(use_stack(1 << 30) == 0)
    }))
}

/// Reads from an unmapped address in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_fault() -> c_int {
    or_failed(enter(|| {
        // SAFETY: none. The fault is on purpose, and the process does not continue after it.
        unsafe { std::hint::black_box(16 as *const c_int).read_volatile() }
    }))
}

/// Returns the number of attached threads.
#[unsafe(no_mangle)]
pub extern "C" fn guest_attached_threads() -> c_int {
    upcall::snapshot().threads.len() as c_int
}

/// Returns the number of open calls of this thread, upcalls and downcalls.
#[unsafe(no_mangle)]
pub extern "C" fn guest_open_calls() -> c_int {
    let snapshot = upcall::snapshot();
    snapshot.threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.calls.len() as c_int)
}

/// Returns the number of pooled stacks in use.
#[unsafe(no_mangle)]
pub extern "C" fn guest_stacks_in_use() -> c_int {
    upcall::snapshot().pool.in_use as c_int
}
