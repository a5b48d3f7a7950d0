//! Downcalls: Rust calls C back, on the stack of C. Half of the file documents public functions.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::stack_pointer;

use super::answer::{Ends, Gives, Raises};
use super::foreign_unwind::abort_on_foreign_unwind;
use super::run_here;
use super::thunk::{Body, Thunk};
use crate::coroutine::FiberContext;
use crate::coroutine::spans;
use crate::drop_guards::drop_ignoring_panics;
use crate::function::Function;
use crate::stack::{CStays, StackHeader, header_at, mend_os_bounds, switch};
use crate::sync::in_own_code;
use crate::thread::{
    Attached, C_HERE, CallName, Closed, CurrentUpcall, Frame, OpenCall, Payload, ThreadState, record,
};

/// Runs `f`, which calls C, on the system stack, and raises the panics of upcalls from there.
///
/// The system stack is the stack of the C code that made the current upcall. `f` runs there below
/// C's frames. C finds the room, the guard and the bounds given by the host, and hosts that check
/// their stack find their own. Outside any upcall, and in an upcall running in place, `f` runs in
/// place; panics travel in the same way.
///
/// A downcall *encloses* the upcalls that C makes from there, on this stack or on another. If one
/// of them panics, the downcall raises the panic with its original payload once C has returned. It
/// raises only the first panic, and none while this thread is unwinding: a second panic would abort
/// the process. Panics not raised are reported to C only, as its last panic.
///
/// If an upcall comes from a coroutine, upcall finds its enclosing downcall by walking the frames.
/// The walk needs C code with unwind tables. It ends early at C code without them, and at the start
/// of a coroutine, whose resumer nobody knows. The innermost downcall on the thread's own stack
/// then counts as the enclosing one. Downcalls on other coroutines are passed over, since they may
/// be suspended. If there is none on the thread's own stack, the panic is reported to C only.
///
/// **Thread-locals:** the C code may switch to another coroutine of the host's. This suspends the
/// calling Rust frames, and other code of the thread runs; the thread may even end. So hold
/// no borrow of a thread-local across such a call. This is the rule of
/// [`Fibers::promise`](crate::Fibers::promise), and it binds whoever declares the C function safe
/// to call.
///
/// **Fibers:** from a fiber, the call goes to the stack of the thread that polls the fiber. A wait
/// in an upcall from there blocks the thread. The call stays on the fiber's stack in two cases: C
/// is there already and made the current upcall, or the [maker of the
/// fiber](crate::Builder::c_on_fiber) chose so. C may then be suspended by a callback that waits,
/// and the thread may call the same C code meanwhile. C has the fiber's stack then, with 64 KiB of
/// guard. Whoever declares the C function safe to call answers for both, or calls it by
/// [`downcall_on_system_stack`].
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
/// If `f` panics, or if an enclosed upcall did and nobody [took the
/// panic](crate::UpcallError::into_payload) out of its error. The value of `f` is dropped then. If
/// it needs more than a drop, such as memory allocated by C, use [`try_downcall`].
///
/// # Aborts
/// If the call returns on another thread, because the host moved a suspended stack there.
#[inline]
pub fn downcall<R>(f: impl FnOnce() -> R) -> R {
    made::<R, _, Raises>(f)
}

/// Like [`downcall`], for C whose value must not be lost.
///
/// If an enclosed upcall panicked, this returns the panic beside the value, and does not raise it.
///
/// ```
/// use std::ffi::{c_char, c_int};
/// use std::panic::resume_unwind;
///
/// # unsafe extern "C" fn duplicate(text: *const c_char, each: extern "C" fn(c_int) -> c_int) -> *mut c_char {
/// #     unsafe { each(text.read().into()); libc::strdup(text) }
/// # }
/// extern "C" fn each(c: c_int) -> c_int {
///     upcall::enter(|| assert!(c < 128, "not ASCII") ).map_or(-1, |()| 0)
/// }
///
/// fn checked_copy(text: &std::ffi::CStr) -> *mut c_char {
///     // SAFETY: C that calls `each` for each byte, and returns memory that `malloc` gave.
///     match upcall::try_downcall(|| unsafe { duplicate(text.as_ptr(), each) }) {
///         Ok(copy) => copy,
///         Err((copy, panic)) => {
///             // SAFETY: the same memory, which nobody else has.
///             unsafe { libc::free(copy.cast()) };
///             resume_unwind(panic)
///         }
///     }
/// }
/// # unsafe { libc::free(checked_copy(c"a").cast()) };
/// # assert!(std::panic::catch_unwind(|| checked_copy(c"\u{e4}")).is_err() || c_char::MIN < 0);
/// ```
///
/// # Errors
/// If an enclosed upcall panicked: C's value, and the payload of the first such panic, for
/// `std::panic::resume_unwind`. This is so even while this thread is unwinding. Do not raise the
/// panic then: it would abort the process.
///
/// The payload may also be that of a [dropped fiber](crate::Fiber#dropping), on its way through the
/// fiber's frames. Resume it after handling the value. Otherwise the fiber goes on until its next
/// [`wait`](crate::wait), and that raises another.
///
/// # Panics
/// If `f` panics: then there is no value.
///
/// # Aborts
/// Like [`downcall`].
#[inline]
pub fn try_downcall<R>(f: impl FnOnce() -> R) -> Result<R, (R, Box<dyn Any + Send>)> {
    made::<R, _, Gives>(f)
}

#[inline(always)]
fn made<R, F: FnOnce() -> R, E: Ends<R>>(f: F) -> E::Answer {
    let _span = spans::downcall(Function::with(&f));
    let sp = stack_pointer();
    let thread = ThreadState::current();
    if thread.owns(sp) {
        return call_in_place::<R, F, E>(thread, sp, f);
    }
    let stack = thread.pooled_at(sp).or_else(|| header_at(sp));
    if let Some(stack) = stack.filter(|stack| stack.c_stays.get() != CStays::No) {
        on_fiber::<R, F, E>(thread, stack, f)
    } else {
        call_on_system_stack::<R, F, E>(thread, sp, stack, f)
    }
}

/// Runs `f`, which calls C, on the system stack, even if [`downcall`] would stay on a fiber's
/// stack.
///
/// `downcall` stays there on a fiber [made for this](crate::Builder::c_on_fiber), and below C
/// already running on a fiber's stack.
///
/// Use this for C that must be on a stack of the thread's own. It checks its depth, scans the stack
/// for references, or needs more stack than a fiber has: most interpreters and virtual machines do.
/// Use it also for C that must not be suspended, because it holds a lock, or keeps state for the
/// thread. A wait in an upcall from there blocks the thread.
///
/// ```
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// # fn c() -> usize { stackbounds::current().low() }
/// let fiber = FIBERS.builder().c_on_fiber().build(|| {
///     let own = stackbounds::current().low();
///     assert_eq!(upcall::downcall(c), own);
///     assert_ne!(upcall::downcall_on_system_stack(c), own);
/// })?;
/// upcall::wait(fiber);
/// # Ok::<(), upcall::Refusal>(())
/// ```
///
/// Outside a fiber, this is the same as [`downcall`]. It panics and aborts like [`downcall`].
///
/// **C's `longjmp`** must not lead from there to C code on the fiber's stack.
#[inline]
pub fn downcall_on_system_stack<R>(f: impl FnOnce() -> R) -> R {
    let _span = spans::downcall(Function::with(&f));
    leaving(f)
}

#[inline(always)]
fn leaving<R, F: FnOnce() -> R>(f: F) -> R {
    let sp = stack_pointer();
    let thread = ThreadState::current();
    if thread.owns(sp) {
        return call_in_place::<R, _, Raises>(thread, sp, f);
    }
    match thread.pooled_at(sp).or_else(|| header_at(sp)) {
        Some(stack) if is_beyond_c(stack) => beyond_c(thread, sp, stack, f),
        stack => call_on_system_stack::<R, _, Raises>(thread, sp, stack, f),
    }
}

/// Whether the system stack of `stack` is a fiber's stack with live C frames.
#[inline(always)]
fn is_beyond_c(stack: &StackHeader) -> bool {
    stack.fiber().is_some() && header_at(stack.system_sp.load(Relaxed)).is_some()
}

/// Makes a downcall from an extension stack beyond C frames on a fiber's stack.
///
/// It goes to that stack first, and from there on towards the thread's own. Each stack with C
/// frames in between takes a step.
#[inline(never)]
fn beyond_c<R, F: FnOnce() -> R>(
    thread: &'static ThreadState,
    sp: usize,
    stack: &'static StackHeader,
    f: F,
) -> R {
    let (mut f, mut result) = (Some(f), None);
    let mut run = || result = f.take().map(|f| f());
    // Without the type of the closure; otherwise each step would be a function of its own.
    let run: &mut dyn FnMut() = &mut run;
    call_on_system_stack::<(), _, Raises>(thread, sp, Some(stack), || leaving(run));
    result.expect("upcall: a downcall that returns has run what it was given")
}

/// Runs `f`, which calls C, on the stack of the current fiber, where C can be suspended.
///
/// Upcalls from this C run on the same stack, and so do their downcalls. If such an upcall
/// [waits](crate::wait), the fiber is suspended with C's frames in the middle of it. So a
/// synchronous C library becomes asynchronous, without a thread of its own:
///
/// ```
/// use std::time::Duration;
/// # extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
/// #     // SAFETY: qsort passes elements of the array below.
/// #     upcall::enter(|| unsafe { upcall::yield_now(); a.cast::<i32>().read().cmp(&b.cast::<i32>().read()) as i32 }).unwrap()
/// # }
///
/// // `compare` is an upcall that waits.
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// let sorted = FIBERS.fiber(|| {
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
/// **Stack size:** C has the rest of the fiber's stack:
/// [`fiber_stack`](crate::Config::fiber_stack), less the part used by Rust code. This suits C code
/// of modest depth, and hosts that do not check their stack.
///
/// **While C is suspended**, the thread does other things, and C must tolerate this. Its locks stay
/// held, and its thread-local state is shared with other fibers of the thread. C++ exceptions are
/// not shared: each fiber has its own, in `catch` blocks and destructors that wait.
///
/// Outside a fiber, this is the same as [`downcall`]. It panics and aborts like [`downcall`].
#[inline]
pub fn downcall_on_fiber<R>(f: impl FnOnce() -> R) -> R {
    let sp = stack_pointer();
    let thread = ThreadState::current();
    let Some(stack) = thread.stack_at(sp).filter(|stack| stack.fiber().is_some()) else { return downcall(f) };
    let _span = spans::downcall(Function::with(&f));
    on_fiber::<R, _, Raises>(thread, stack, f)
}

/// Makes a downcall from the thread's own stack.
#[inline(always)]
fn call_in_place<R, F: FnOnce() -> R, E: Ends<R>>(
    thread: &'static ThreadState,
    sp: usize,
    f: F,
) -> E::Answer {
    let frame = Frame::new();
    let call = begin(thread, &frame, sp);
    let result = catch_unwind(AssertUnwindSafe(|| abort_on_foreign_unwind(f)));
    thread.check_same_token(CallName::Downcall(Function::of::<F>()));
    end::<R, E>(thread, &frame, call, result)
}

/// Makes a downcall in place on a fiber's stack.
#[inline(never)]
fn on_fiber<R, F: FnOnce() -> R, E: Ends<R>>(
    thread: &'static ThreadState,
    stack: &'static StackHeader,
    f: F,
) -> E::Answer {
    let frame = Frame::new();
    let call = begin(thread, &frame, stack_pointer() | C_HERE);
    let before = stack.c_stays.replace(CStays::WithC);
    if let Some(fiber) = stack.fiber() {
        fiber.c_comes();
    }
    let result = catch_unwind(AssertUnwindSafe(|| abort_on_foreign_unwind(f)));
    thread.check_same_thread(stack.owner.get(), CallName::Downcall(Function::of::<F>()));
    mend_os_bounds(stack_pointer());
    stack.c_stays.set(before);
    thread.pooled.set(stack);
    end::<R, E>(thread, &frame, call, result)
}

/// An open downcall, as kept in its frame beside its number.
#[derive(Clone, Copy)]
struct Begun {
    place: &'static OpenCall,
    /// The upcall making the call.
    upcall: CurrentUpcall,
}

/// Notes the call. `sp` is SP of the function that keeps `frame`, with [`C_HERE`] if C runs in
/// place.
#[inline(always)]
fn begin(thread: &'static ThreadState, frame: &Frame, sp: usize) -> Begun {
    let upcall = thread.upcall.get();
    let find = || record::find_call_place(thread, sp & !C_HERE);
    Begun { place: thread.calls.open(frame, sp, upcall, find), upcall }
}

/// Ends a downcall, and makes its upcall the current one again.
///
/// Raises the panic of the call itself, if there is one. Otherwise answers with the value and the
/// pending panic of an enclosed upcall.
#[inline(always)]
fn end<R, E: Ends<R>>(
    thread: &ThreadState,
    frame: &Frame,
    call: Begun,
    result: std::thread::Result<R>,
) -> E::Answer {
    thread.upcall.set(call.upcall);
    match result {
        Ok(value) => match thread.calls.close(frame, call.place) {
            Closed::WithoutPanic => E::value(value),
            Closed::WithPanic => end_with_panic::<R, E>(thread, call.place, value),
            Closed::Before => E::value(end_closed_before(thread, value)),
        },
        Err(payload) => {
            if let Some(pending) = close(thread, frame, call.place) {
                serves_again();
                drop_ignoring_panics(|| drop(pending));
            }
            resume_unwind(payload)
        }
    }
}

#[cold]
#[inline(never)]
fn end_with_panic<R, E: Ends<R>>(thread: &ThreadState, place: &'static OpenCall, value: R) -> E::Answer {
    value_or_panic::<R, E>(value, thread.calls.close_with_panic(place))
}

#[cold]
#[inline(never)]
fn end_closed_before<R>(thread: &ThreadState, value: R) -> R {
    thread.calls.closed_before();
    value
}

/// Notes the return of the call. Returns the pending panic.
fn close(thread: &ThreadState, frame: &Frame, place: &'static OpenCall) -> Option<Payload> {
    match thread.calls.close(frame, place) {
        Closed::WithoutPanic => None,
        Closed::WithPanic => thread.calls.close_with_panic(place),
        Closed::Before => {
            thread.calls.closed_before();
            None
        }
    }
}

/// Answers with the value, and with the pending panic if there is one.
#[inline(always)]
fn value_or_panic<R, E: Ends<R>>(value: R, panic: Option<Payload>) -> E::Answer {
    match panic {
        None => E::value(value),
        Some(payload) => with_panic::<R, E>(value, payload),
    }
}

#[cold]
#[inline(never)]
fn with_panic<R, E: Ends<R>>(value: R, payload: Payload) -> E::Answer {
    E::value_and_panic(value, payload, serves_again())
}

/// Lets the current fiber's upcalls in again, and returns the fiber.
///
/// Called after C returned with a panic pending: C is gone, and so is the reason to refuse its
/// upcalls.
#[cold]
#[inline(never)]
fn serves_again() -> Option<&'static FiberContext> {
    let fiber = ThreadState::current().fiber_at(stack_pointer())?;
    fiber.refuses.set(false);
    Some(fiber)
}

/// Makes a downcall from outside the thread's own stack. `stack` is the pooled stack, if it is one.
#[inline(always)]
fn call_on_system_stack<R, F: FnOnce() -> R, E: Ends<R>>(
    thread: &'static ThreadState,
    sp: usize,
    stack: Option<&'static StackHeader>,
    f: F,
) -> E::Answer {
    let mut thunk = Thunk::new(f);
    let Some(stack) = stack else {
        // SAFETY: the thunk is new: it has neither run nor given away a body.
        let pending = not_pooled(thread, sp, unsafe { thunk.body() });
        // SAFETY: `not_pooled` returned, so the thunk ran and did not panic, and has a result.
        return value_or_panic::<R, E>(unsafe { thunk.result() }, pending);
    };
    let system_sp = stack.system_sp.load(Relaxed);
    let moves = thread.stack_moves_at(system_sp);
    let coroutine = if moves { thread.running_coroutine() } else { 0 };
    let frame = Frame::new();
    let call = begin(thread, &frame, sp);
    if moves {
        call.place.set_coroutine(coroutine);
    }
    // SAFETY: this runs on `stack`, and `system_sp` was set at its entry or at its coroutine's last
    // resumption. The frames above `system_sp` wait for this code, so nothing is in use below. The
    // thunk has not run.
    let result =
        catch_unwind(AssertUnwindSafe(|| unsafe { switch::on_system(stack, system_sp, || thunk.run()) }));
    thread.check_same_thread(stack.owner.get(), CallName::Downcall(Function::of::<F>()));
    thread.pooled.set(stack);
    // SAFETY: if there is no panic, the thunk ran to its end and has a result.
    end::<R, E>(thread, &frame, call, result.map(|()| unsafe { thunk.result() }))
}

/// Makes a downcall in place, on a stack neither the thread's own nor pooled.
///
/// This happens on a thread new to upcall, on a registered stack, and on a foreign one with
/// [`StackChoice::Caller`](crate::StackChoice::Caller). Raises the panic of the body; otherwise
/// returns the pending one.
#[cold]
#[inline(never)]
fn not_pooled(thread: &'static ThreadState, sp: usize, body: Body<'_>) -> Option<Payload> {
    if in_own_code() {
        // An allocator called by our own code is in an upcall here. Nothing is noted of the call.
        body.run();
        return None;
    }
    let attached = Attached::new(thread, sp);
    let frame = Frame::new();
    let call = begin(thread, &frame, stack_pointer());
    let function = body.function;
    let result = run_here(thread, || body.run(), CallName::Downcall(function));
    thread.upcall.set(call.upcall);
    let pending = close(thread, &frame, call.place);
    drop(attached);
    if let Err(payload) = result {
        drop_ignoring_panics(|| drop(pending));
        resume_unwind(payload)
    }
    pending
}
