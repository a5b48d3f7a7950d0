//! Rust calls C back, on the stack that C was on.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::stack_pointer;

use super::body::{Body, Slot};
use super::foreign::refusing;
use super::run_here;
use crate::function::Function;
use crate::quiet::quietly;
use crate::spans;
use crate::stack::coroutine::{Cancelled, Running};
use crate::stack::{Control, control_at, switch};
use crate::thread::{C_HERE, Closed, Frame, Hot, OpenCall, Payload, Upcall, record};

/// Runs `f`, which calls C, on the system stack: the stack that C itself was on when it made the upcall that this code belongs to,
/// below C's frames. There C finds the room, the guard and the bounds that the host gave it, and hosts that check their
/// stack find their own.
///
/// Upcalls that C makes from there, on this or on whatever stack it switches to, are *enclosed* by the downcall: if one of
/// them panics, the panic is raised here with its original payload once C has returned. Only the first such panic is
/// raised, and none while this thread is unwinding already, when raising a second would abort the process: both are told
/// to C as the last panic.
///
/// Which downcall encloses an upcall from a coroutine is found by walking the frames, which takes C code with unwind tables. Where the walk ends early,
/// and between coroutines, whose resumers nobody knows, it is the innermost downcall on the thread's own stack; downcalls on other
/// coroutines are passed over, since they may be suspended. Without one there, the panic is told to C only.
///
/// Outside any upcall, and in an upcall that runs in place, `f` runs where it is; panics travel all the same.
///
/// A fiber's code leaves for the stack of the thread that polls the fiber; in an upcall that C made on the fiber's stack, it stays there, with C.
///
/// ```
/// extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
///     upcall::enter(|| {
///         // SAFETY: qsort passes elements of the array below.
///         let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
///         assert!(a >= 0 && b >= 0, "negative");
///         a.cmp(&b) as libc::c_int
///     })
///     .unwrap_or(0)
/// }
///
/// fn sort(numbers: &mut [i32]) {
///     // SAFETY: the array is valid for the length given, and `compare` reads `i32`s.
///     upcall::downcall(|| unsafe {
///         libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 4, Some(compare))
///     });
/// }
///
/// let mut numbers = [3, 1, 2];
/// sort(&mut numbers);
/// assert_eq!(numbers, [1, 2, 3]);
/// // The panic in `compare` crosses qsort and arrives here:
/// assert!(std::panic::catch_unwind(|| sort(&mut [3, -1, 2])).is_err());
/// ```
///
/// # Panics
/// When `f` does, and when an enclosed upcall did.
///
/// # Aborts
/// When the call comes back on another thread than it began on, because the host moved a suspended stack there.
#[inline]
pub fn downcall<R>(f: impl FnOnce() -> R) -> R {
    let _span = spans::downcall(Function::with(&f));
    let sp = stack_pointer();
    let hot = Hot::here();
    if hot.owns(sp) {
        return in_place(hot, sp, f);
    }
    let stack = hot.pooled_at(sp).or_else(|| control_at(sp));
    if let Some(stack) = stack.filter(|stack| stack.has_c.get()) {
        on_fiber(hot, stack, f)
    } else {
        elsewhere(hot, sp, stack, f)
    }
}

/// Runs `f`, which calls C, on the stack of the fiber whose code this is: upcalls that C makes from there run there too, with the downcalls that they make, and if they
/// [`wait`](crate::wait), the fiber is suspended, with C's frames in the middle of it. So a synchronous C library becomes
/// asynchronous, without a thread of its own:
///
/// ```
/// use std::time::Duration;
/// # extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
/// #     // SAFETY: qsort passes elements of the array below.
/// #     upcall::enter(|| unsafe { upcall::yield_now(); a.cast::<i32>().read().cmp(&b.cast::<i32>().read()) as i32 }).unwrap()
/// # }
///
/// // `compare` is an upcall that waits.
/// let sorted = upcall::Fiber::new(|| {
///     let mut numbers = [3, 1, 2];
///     // SAFETY: the array is valid for the length given, and `compare` reads `i32`s.
///     upcall::downcall_on_fiber(|| unsafe {
///         libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 4, Some(compare))
///     });
///     numbers
/// });
/// assert_eq!(upcall::wait(sorted), [1, 2, 3]);
/// ```
///
/// C has what is left of the fiber's stack ([`fiber_stack`](crate::Config::fiber_stack), less what Rust code uses), which suits C code of
/// modest depth, and hosts that do not check their stack. What it calls must not mind that the thread does other things meanwhile: locks
/// that it holds stay held, and thread-local state that it keeps is shared with other fibers of the thread.
///
/// Outside a fiber, this is [`downcall`], whose panics and aborts it has.
#[inline]
pub fn downcall_on_fiber<R>(f: impl FnOnce() -> R) -> R {
    let sp = stack_pointer();
    let hot = Hot::here();
    let Some(stack) = hot.stack_at(sp).filter(|stack| stack.fiber().is_some()) else { return downcall(f) };
    let _span = spans::downcall(Function::with(&f));
    on_fiber(hot, stack, f)
}

/// From the thread's own stack.
#[inline(always)]
fn in_place<R, F: FnOnce() -> R>(hot: &'static Hot, sp: usize, f: F) -> R {
    let frame = Frame::new();
    let call = begin(hot, &frame, sp);
    let result = catch_unwind(AssertUnwindSafe(|| refusing(f)));
    hot.check_same_token(|| downcall_of(Function::of::<F>()));
    end(hot, &frame, call, result)
}

/// From a fiber's stack, which C is to run on.
#[inline(never)]
fn on_fiber<R, F: FnOnce() -> R>(hot: &'static Hot, stack: &'static Control, f: F) -> R {
    let frame = Frame::new();
    let call = begin(hot, &frame, stack_pointer() | C_HERE);
    let had_c = stack.has_c.replace(true);
    let result = catch_unwind(AssertUnwindSafe(|| refusing(f)));
    hot.check_same_thread(stack.mark.get(), || downcall_of(Function::of::<F>()));
    stack.has_c.set(had_c);
    hot.pooled.set(stack);
    end(hot, &frame, call, result)
}

/// What a downcall's frame knows of it, besides its number.
#[derive(Clone, Copy)]
struct Begun {
    place: &'static OpenCall,
    /// The upcall that it belongs to.
    upcall: Upcall,
}

/// Notes the call. `sp` is that of the function which keeps `frame`, with [`C_HERE`] or without.
#[inline(always)]
fn begin(hot: &'static Hot, frame: &Frame, sp: usize) -> Begun {
    let find_places = || {
        record::find_call_places(hot, sp & !C_HERE);
    };
    let upcall = hot.upcall.get();
    Begun { place: hot.calls.open(frame, sp, upcall, find_places), upcall }
}

/// Notes that the call returned, and that the upcall which made it goes on. Raises what it raised itself; else returns its value, unless an enclosed
/// upcall left something to be raised.
#[inline(always)]
fn end<R>(hot: &Hot, frame: &Frame, call: Begun, result: std::thread::Result<R>) -> R {
    hot.upcall.set(call.upcall);
    match result {
        Ok(value) => match hot.calls.close(frame, call.place) {
            Closed::InOrder => value,
            Closed::OutOfOrder => end_out_of_order(hot, call.place, value),
            Closed::Before => end_closed_before(hot, value),
        },
        Err(payload) => {
            if let Some(left) = close(hot, frame, call.place) {
                serves_again();
                quietly(|| drop(left));
            }
            resume_unwind(payload)
        }
    }
}

#[cold]
#[inline(never)]
fn end_out_of_order<R>(hot: &Hot, place: &'static OpenCall, value: R) -> R {
    value_or_panic(value, hot.calls.close_out_of_order(place))
}

#[cold]
#[inline(never)]
fn end_closed_before<R>(hot: &Hot, value: R) -> R {
    hot.calls.closed_before();
    value
}

/// Notes that the call returned; returns what is to be raised.
fn close(hot: &Hot, frame: &Frame, place: &'static OpenCall) -> Option<Payload> {
    match hot.calls.close(frame, place) {
        Closed::InOrder => None,
        Closed::OutOfOrder => hot.calls.close_out_of_order(place),
        Closed::Before => {
            hot.calls.closed_before();
            None
        }
    }
}

/// The value, unless there is a panic to be raised in its place.
#[inline(always)]
fn value_or_panic<R>(value: R, panic: Option<Payload>) -> R {
    match panic {
        None => value,
        Some(payload) => raise_in_place_of(value, payload),
    }
}

fn downcall_of(function: Function) -> String {
    format!("the downcall of {function}")
}

#[cold]
#[inline(never)]
fn raise_in_place_of<R>(value: R, payload: Payload) -> R {
    let fiber = serves_again();
    if let Some(fiber) = fiber.filter(|fiber| payload.is::<Cancelled>() && !fiber.unwinds()) {
        quietly(|| drop(value));
        fiber.raise_cancelled();
    }
    if fiber.map_or_else(std::thread::panicking, Running::unwinds) {
        quietly(|| drop(payload));
        return value;
    }
    // A value that panics when it is dropped must not do so while the other panic unwinds.
    quietly(|| drop(value));
    resume_unwind(payload)
}

/// The fiber whose code this is, if it is one's. C has returned, by which something was left, so its upcalls are served again.
#[cold]
#[inline(never)]
fn serves_again() -> Option<&'static Running> {
    let fiber = Hot::here().fiber_at(stack_pointer())?;
    fiber.refuses.set(false);
    Some(fiber)
}

/// A downcall from any other stack than the thread's own, from `stack` if it is pooled.
#[inline(always)]
fn elsewhere<R, F: FnOnce() -> R>(hot: &'static Hot, sp: usize, stack: Option<&'static Control>, f: F) -> R {
    let mut slot = Slot::new(f);
    let Some(stack) = stack else {
        // SAFETY: the slot is new.
        let left = not_pooled(hot, sp, unsafe { slot.body() });
        // SAFETY: it ran, and did not panic, or `not_pooled` would not have returned: there is a result.
        return value_or_panic(unsafe { slot.result() }, left);
    };
    let system_sp = stack.system_sp.load(Relaxed);
    let frame = Frame::new();
    let call = begin(hot, &frame, sp);
    // SAFETY: this runs on `stack`, whose `system_sp` was set when it was entered; the frames above it are those that wait for us.
    // The slot has not run.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe { switch::on_system(system_sp, || slot.run()) }));
    hot.check_same_thread(stack.mark.get(), || downcall_of(Function::of::<F>()));
    hot.pooled.set(stack);
    // SAFETY: where there is no panic, it ran to its end: there is a result.
    end(hot, &frame, call, result.map(|()| unsafe { slot.result() }))
}

/// On a stack that is neither the thread's own nor pooled: a thread that is new to us, a registered stack,
/// or a foreign one, on which an upcall runs by its own choice. Raises what the body raises; returns what is to be raised else.
#[cold]
#[inline(never)]
fn not_pooled(hot: &'static Hot, sp: usize, body: Body<'_>) -> Option<Payload> {
    record::attach_if_new(hot, sp);
    let frame = Frame::new();
    let call = begin(hot, &frame, stack_pointer());
    let function = body.function;
    let result = run_here(hot, || body.run(), || downcall_of(function));
    hot.upcall.set(call.upcall);
    let left = close(hot, &frame, call.place);
    record::detach_if_exiting(hot);
    if let Err(payload) = result {
        quietly(|| drop(left));
        resume_unwind(payload)
    }
    left
}
