//! Waiting for a future, from any stack.
//!
//! ```text
//! wait(future)
//! ├─ SP on a stack of a fiber's code → poll with the waker of the fiber's own poll;
//! │                                    while pending, suspend the fiber
//! ├─ on a coroutine of a host with hooks → while pending, have the host suspend it (`coroutines`)
//! └─ anywhere else                   → poll with the thread's waker;
//!      │                               while pending, park the thread
//!      ├─ in a tokio task: block the thread in tokio's way (`host_runtime.rs`)
//!      ├─ meanwhile, below this frame, the thread runs the fibers of its worker or LocalRuntime
//!      ├─ right around a sleep, the host releases what it holds, and takes it back (`blocked.rs`)
//!      └─ the host may end the wait (`interrupted.rs`)
//! ```

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use stackbounds::stack_pointer;

use super::blocked::{Blocked, around_block};
use super::coroutines::{self, Ended, suspend_until};
use super::host_runtime::{self, How};
use super::interrupted::{Asker, OnInterrupt, Stopped};
use super::{initialiser, sigpipe, thread_end};
use crate::coroutine::spans;
use crate::coroutine::{FiberContext, Polling};
use crate::crossing::Interrupted;
use crate::drop_guards::IgnoreDropPanic;
use crate::function::Function;
use crate::thread::deferred_wake::BlockingPoll;
use crate::thread::{Attached, Parked, RecordPin, ThreadState, waker};

/// Waits for a future and returns its output, from anywhere.
///
/// The caller may be in a fiber, in an upcall on any thread and any stack, nested or not, inside a
/// task of tokio or of another executor, or on a plain thread. The position of the stack pointer
/// decides the effect of the wait:
/// - On a fiber's own stack, it suspends the fiber, and the fiber's executor continues with others.
///   The same goes for an upcall made by C [on that stack](crate::downcall_on_fiber).
/// - On a coroutine of a host with [hooks](crate::coroutines), it suspends the coroutine.
/// - Anywhere else, it blocks the thread until the future is ready. A worker of
///   [`spawn`](crate::Fibers::spawn), or a thread with a [`LocalRuntime`](crate::LocalRuntime),
///   runs its fibers meanwhile, so it may wait for one of them.
///
/// ```
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// let (sender, receiver) = async_channel::bounded(1);
/// let fiber = FIBERS.spawn(move || upcall::wait(receiver.recv()).unwrap());
/// upcall::wait(sender.send(42)).unwrap();
/// assert_eq!(fiber.join().unwrap(), 42);
/// ```
///
/// Waits that block one thread nest like all calls: an inner wait, made by code that runs
/// meanwhile, must return first. **Deadlock:** never block on something that a caller further up
/// the same stack must finish first. Waits that suspend have no order.
///
/// Futures of any library will do, and those of async-io need nothing else. Futures of tokio may
/// need its reactor or timers. With the feature `tokio` they find them, inside or outside a runtime
/// of tokio, if they are made inside the poll: `wait(async { tokio::time::sleep(d).await })`.
/// Outside a runtime, `wait(tokio::time::sleep(d))` panics before `wait` is called.
///
/// Inside the initialiser of a `LazyLock`, `OnceLock` or `Once`, a wait blocks the thread, and
/// nothing runs there meanwhile: any code coming to that cell would block the thread in the
/// standard library. **Deadlock:** such a wait must not be for a fiber of its own thread.
///
/// Inside a signal handler, a wait also blocks the thread, and nothing runs there meanwhile.
/// **Deadlock:** such a wait must not be for anything that the interrupted code is to do.
///
/// A guard of `std::sync::Mutex` held across a wait locks out every other fiber of the thread, for
/// good if one of them tries to lock it. Use `async_lock::Mutex` or `tokio::sync::Mutex`, and
/// `wait(mutex.lock())`.
///
/// While the thread is panicking, in a destructor, a wait blocks the thread and runs nothing
/// meanwhile. `panicking` is a state of the thread, and other fibers must not see it.
///
/// # Panics
/// - If the future panics.
/// - If the fiber is dropped while it waits. Its stack is unwound from here, with a payload of
///   upcall's own and without the panic hook. Code that catches the payload and waits again is
///   unwound again.
/// - If the host kills its coroutine, suspended by the wait: see
///   [`Resumed::ToEnd`](crate::coroutines::Resumed::ToEnd). The stack is unwound from here, with
///   the payload [`Killed`](crate::coroutines::Killed) and without the panic hook.
/// - If the host ends the wait by its hook, [`Config::interrupted`](crate::Config::interrupted).
///   The host may end waits that block their thread. The future is dropped, and the stack is
///   unwound from here, with the payload [`Interrupted`] and without the panic hook. In an upcall,
///   C gets the value declared by the function. Outside, the unwinding goes on to the thread's end,
///   like a panic. [`wait_interruptible`] returns an error instead.
/// - If the thread would sleep in a copy of the process made by `_Fork` or `clone` (not by `fork`),
///   unless no other thread had used upcall.
#[inline]
#[track_caller]
pub fn wait<F: IntoFuture>(future: F) -> F::Output {
    wait_as(future, Function::of::<F>(), Location::caller(), Needs::Anything, OnInterrupt::Unwinds)
        .unwrap_or_else(|stopped| stopped.unwind())
}

/// Waits like [`wait`], but returns an error if the host ends the wait.
///
/// upcall asks the host by [`Config::interrupted`](crate::Config::interrupted), on the thread
/// blocked by the wait. A wait that suspends a fiber is not ended. One that suspends a coroutine of
/// the host ends if the host [kills](crate::coroutines::Resumed::ToEnd) the coroutine.
///
/// ```
/// use std::ffi::c_int;
///
/// #[upcall::export(on_panic = -1)]
/// extern "C" fn receive() -> c_int {
///     # let (_sender, receiver) = async_channel::bounded::<c_int>(1);
///     # _sender.try_send(7).unwrap();
///     match upcall::wait_interruptible(receiver.recv()) {
///         Ok(number) => number.unwrap_or(-1),
///         Err(upcall::Interrupted) => -2,
///     }
/// }
/// # assert_eq!(receive(), 7);
/// ```
///
/// # Errors
/// If the host ended the wait. The future has been dropped.
///
/// # Panics
/// Like [`wait`], except for the interruption.
#[inline]
#[track_caller]
pub fn wait_interruptible<F: IntoFuture>(future: F) -> Result<F::Output, Interrupted> {
    wait_as(future, Function::of::<F>(), Location::caller(), Needs::Anything, OnInterrupt::Returns)
        .map_err(|_| Interrupted)
}

/// Needs of a future around its polls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Perhaps a runtime of tokio.
    Anything,
    /// Nothing: the future is upcall's own.
    Nothing,
}

/// Waits for a future of ours; it needs no runtime.
#[cfg(feature = "runtime")]
#[inline]
#[track_caller]
pub(crate) fn wait_for_ours<F: Future>(future: F) -> F::Output {
    wait_as(future, Function::of::<F>(), Location::caller(), Needs::Nothing, OnInterrupt::Unwinds)
        .unwrap_or_else(|stopped| stopped.unwind())
}

/// Makes every wait for a future. Reports name the future by `function`.
#[inline(always)]
pub(crate) fn wait_as<F: IntoFuture>(
    future: F,
    function: Function,
    caller: &'static Location<'static>,
    needs: Needs,
    on_interrupt: OnInterrupt,
) -> Result<F::Output, Stopped> {
    let _span = spans::wait(function, caller);
    let mut future = pin!(host_runtime::future_of(future));
    let sp = stack_pointer();
    let thread = ThreadState::current();
    // All of this is compiled into the caller. A processor predicts no return after a switch of
    // stacks, so each function between the switch and the fiber's code would cost a misprediction.
    if let Some(fiber) = suspends(thread, sp) {
        unwind_if_cancelled(fiber);
        loop {
            let before = fiber.suspensions.get();
            // SAFETY: `begin` is called on this variable, before the coroutine is suspended and
            // with this function's SP. The variable does not move until its drop.
            let polling = unsafe { Polling::new(fiber) };
            let mut context = Context::from_waker(polling.begin(sp));
            let polled = host_runtime::poll(future.as_mut(), &mut context, How::Suspends, needs);
            drop(polling);
            if let Poll::Ready(value) = polled {
                return Ok(value);
            }
            // A wait inside the poll may have consumed the wake-up of this future. If so, poll
            // again.
            if fiber.suspensions.get() == before {
                if initialiser::suspends_inside(fiber, caller, sp) {
                    break;
                }
                suspend(thread, fiber, caller, function);
            }
        }
    }
    let mut output = None;
    let stopped =
        park_until(thread, sp, caller, function, on_interrupt, &mut |context| match host_runtime::poll(
            future.as_mut(),
            context,
            How::Blocks,
            needs,
        ) {
            Poll::Ready(value) => {
                output = Some(value);
                true
            }
            Poll::Pending => false,
        });
    output.ok_or(stopped)
}

/// The fiber to be suspended by a wait at `sp`; `None` if the wait blocks the thread.
///
/// The standard library counts panics per thread. So a fiber is not suspended while it is unwound:
/// others would run with its panic. And while the thread is panicking, nobody can tell whether this
/// fiber or another code is being unwound.
#[inline(always)]
pub(crate) fn suspends(thread: &ThreadState, sp: usize) -> Option<&'static FiberContext> {
    thread.fiber_at(sp).filter(|fiber| !std::thread::panicking() && !fiber.blocks(sp))
}

/// Suspends the fiber until it is resumed. Unwinds if the fiber is cancelled.
#[inline(always)]
pub(crate) fn suspend(
    thread: &ThreadState,
    fiber: &FiberContext,
    caller: &'static Location<'static>,
    future: Function,
) {
    if fiber.suspensions.get() == 0 {
        thread_end::fiber_waits(thread);
    }
    let upcall = thread.upcall.get();
    fiber.suspend(caller, future, upcall);
    thread.upcall.set(upcall);
    unwind_if_cancelled(fiber);
}

#[inline(always)]
fn unwind_if_cancelled(fiber: &FiberContext) {
    if fiber.cancelled.get() {
        unwind_unless_shielded(fiber);
    }
}

/// Unwinds a fiber dropped while it waited, unless it is shielded.
#[cold]
#[inline(never)]
fn unwind_unless_shielded(fiber: &FiberContext) {
    if !fiber.is_shielded() {
        fiber.raise_cancelled();
    }
}

/// Waits for a future that does not panic. Never unwinds, even if the fiber is dropped meanwhile.
#[track_caller]
pub(crate) fn wait_shielded<F: Future>(future: F) -> F::Output {
    let function = Function::of::<F>();
    let _shield = suspends(ThreadState::current(), stack_pointer()).map(FiberContext::shield);
    let mut future = pin!(future);
    let caller = Location::caller();
    let mut wait = || wait_as(future.as_mut(), function, caller, Needs::Nothing, OnInterrupt::Stays);
    let waited = catch_unwind(AssertUnwindSafe(|| wait().unwrap_or_else(|_| unreachable!("it stays"))));
    waited.unwrap_or_else(|payload| {
        // The panic came from the waker of the fiber's own poll. The thread's waker does not panic.
        waker::report_panic();
        drop(IgnoreDropPanic::new(payload));
        block_on(future)
    })
}

/// Waits by blocking the thread, also on a fiber.
#[inline(never)]
fn block_on<T>(mut future: Pin<&mut impl Future<Output = T>>) -> T {
    let thread = ThreadState::current();
    let _attached = Attached::new(thread, stack_pointer());
    let pin = RecordPin::of(thread);
    let parker = thread.parker();
    let waker = parker.waker();
    let value = loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            break value;
        }
        while !parker.take_token() {
            let sleep = || parker.look() || around_block(|| parker.sleep(None)) == Parked::Woken;
            if !run_nested(thread) && sleep() {
                break;
            }
        }
    };
    drop(pin);
    thread.set_sleeps(false);
    thread.look_again();
    value
}

/// Suspends the host's coroutine or blocks the thread, until `poll` returns `true` or the wait is
/// stopped. The result tells why, if it was.
#[inline(never)]
pub(crate) fn park_until(
    thread: &'static ThreadState,
    sp: usize,
    caller: &'static Location<'static>,
    future: Function,
    on_interrupt: OnInterrupt,
    poll: &mut dyn FnMut(&mut Context<'_>) -> bool,
) -> Stopped {
    if coroutines::any_installed() {
        match suspend_until(thread, sp, caller, future, on_interrupt, poll) {
            Ended::Blocks => {}
            // If it is ready, there is a result, and nobody looks at the reason.
            Ended::Ready | Ended::Killed => return Stopped::Killed,
        }
    }
    let _attached = Attached::new(thread, sp);
    let pin = RecordPin::of_wait(thread, caller, future);
    let asker = Asker::new(on_interrupt, pin.number());
    let waits = Waiting { thread, pin: Some(pin) };
    let parker = thread.parker();
    let waker = parker.waker();
    let mut context = Context::from_waker(&waker);
    let mut poll = |context: &mut Context<'_>| {
        let _in_poll = BlockingPoll::begin(thread);
        poll(context)
    };
    if !poll(&mut context) {
        let looks = thread.nested_executor().is_some() || thread.fiber_at(sp).is_some();
        let inside = if looks { initialiser::blocks_inside(caller, sp) } else { None };
        host_runtime::blocking(Blocked::new(caller, future, &asker, inside), |blocked| {
            loop {
                while !parker.take_token() {
                    let runs = inside.is_none() && run_nested(thread);
                    let parked = if runs { None } else { Some(blocked.park(parker)) };
                    if parked == Some(Parked::Woken) {
                        break;
                    }
                    if asker.is_interrupted(parked == Some(Parked::Signalled)) {
                        return;
                    }
                }
                if poll(&mut context) || asker.is_interrupted(false) {
                    break;
                }
            }
        });
    }
    drop(waits);
    Stopped::Interrupted
}

/// A wait in progress that blocks the thread.
struct Waiting {
    thread: &'static ThreadState,
    pin: Option<RecordPin>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pin = None;
        self.thread.set_sleeps(false);
        // This wait may have consumed the wake-up of an outer one.
        self.thread.look_again();
    }
}

/// Runs some of the thread's other work while one of its frames waits; returns whether it did.
///
/// Runs nothing while the thread is panicking: that is a state of the thread, and others must not
/// see it.
pub(crate) fn run_nested(thread: &ThreadState) -> bool {
    thread.nested_executor().is_some_and(|run_one| !std::thread::panicking() && sigpipe::outside(run_one))
}
