//! Waiting for a future from wherever the code is.
//!
//! ```text
//! wait(future)
//! ├─ SP on a stack of a fiber's code      → poll with the waker of whoever polls the fiber; while pending, suspend it
//! └─ anywhere else                        → poll with the thread's waker; while pending, park the thread
//!    │    in a tokio task: as tokio wants threads to be blocked
//!    └─ what the thread has to run otherwise (its worker's or LocalRuntime's fibers) runs meanwhile, below this frame
//! ```

use std::future::IntoFuture;
use std::panic::Location;
use std::pin::pin;
use std::task::{Context, Poll};

use stackbounds::stack_pointer;

use super::host_runtime::{self, How};
use crate::function::Function;
use crate::shown::Waits;
use crate::spans;
use crate::stack::coroutine::{Polling, Running};
use crate::thread::{Hot, KeptRecord, record};

/// Waits for a future and returns what it gives. From anywhere: a fiber, an upcall on any thread and any stack, nested or not, inside a
/// task of tokio or of another executor, a plain thread.
///
/// In a fiber, on its own stack, the fiber is suspended and its executor goes on with others; also in an upcall that C made
/// [on that stack](crate::downcall_on_fiber). Anywhere else, the thread is blocked until the future is ready; if it is one of
/// [`spawn`](crate::spawn)'s workers, or has a [`LocalRuntime`](crate::LocalRuntime), it runs its fibers meanwhile, so that it may wait for one
/// of them. Which of the two is decided by where the stack pointer is.
///
/// ```
/// let (sender, receiver) = async_channel::bounded(1);
/// let fiber = upcall::spawn(move || upcall::wait(receiver.recv()).unwrap());
/// upcall::wait(sender.send(42)).unwrap();
/// assert_eq!(fiber.join().unwrap(), 42);
/// ```
///
/// Waits that block one thread are nested like all calls: what runs meanwhile and blocks in turn has to return first, so such a wait must not
/// depend on one further out. Waits that suspend have no order.
///
/// Futures of any library will do. Those of async-io need nothing else; those of tokio that need its reactor or timers find them in
/// tokio's own tasks, and everywhere if the process configured a handle (`Config::tokio`, feature `tokio`) and the
/// future is made while it is polled: `wait(async { tokio::time::sleep(d).await })`.
///
/// A guard of `std::sync::Mutex` held across a wait locks out every other fiber of the thread, for good if one of them
/// tries to lock it: use `async_lock::Mutex` or `tokio::sync::Mutex`, and `wait(mutex.lock())`.
///
/// # Panics
/// When the future does. When the fiber is dropped while it waits, its stack is unwound from here with a payload of its own, which no
/// panic hook sees; code that catches it and waits again is unwound again.
///
/// While the thread is panicking, in a destructor, a wait blocks the thread and runs nothing meanwhile: `panicking` is a
/// state of the thread, which other fibers must not see.
#[inline]
#[track_caller]
pub fn wait<F: IntoFuture>(future: F) -> F::Output {
    let caller = Location::caller();
    let _span = spans::wait(Function::of::<F>(), caller);
    let mut future = pin!(future.into_future());
    let sp = stack_pointer();
    let hot = Hot::here();
    // All of this is compiled into the caller: a processor predicts no return that comes after a switch of stacks, so each
    // function between the switch and the fiber's code would cost a misprediction.
    if let Some(fiber) = suspends(hot, sp) {
        unwind_if_cancelled(fiber);
        loop {
            let before = fiber.suspensions.get();
            // SAFETY: it begins here, and stays.
            let polling = unsafe { Polling::new(fiber) };
            let mut context = Context::from_waker(polling.begin());
            let polled = host_runtime::poll(future.as_mut(), &mut context, How::Suspends);
            drop(polling);
            if let Poll::Ready(value) = polled {
                return value;
            }
            // A wait inside the poll may have taken notice of what woke this future: then it is polled again.
            if fiber.suspensions.get() == before {
                suspend(hot, fiber, caller, Function::of::<F>());
            }
        }
    }
    let mut output = None;
    park_until(hot, sp, caller, Function::of::<F>(), &mut |context| match host_runtime::poll(
        future.as_mut(),
        context,
        How::Blocks,
    ) {
        Poll::Ready(value) => {
            output = Some(value);
            true
        }
        Poll::Pending => false,
    });
    output.expect("a wait ends when there is something")
}

/// The fiber that is suspended by a wait at `sp`; `None` if the thread is blocked.
#[inline(always)]
pub(crate) fn suspends(hot: &Hot, sp: usize) -> Option<&'static Running> {
    hot.fiber_at(sp).filter(|fiber| !fiber.unwinds() && fiber.entered.get() == 0)
}

/// Suspends the fiber until it is resumed; does not return if it is to end.
#[inline(always)]
pub(crate) fn suspend(hot: &Hot, fiber: &Running, caller: &'static Location<'static>, future: Function) {
    let upcall = hot.upcall.get();
    fiber.suspend(caller, future);
    hot.upcall.set(upcall);
    unwind_if_cancelled(fiber);
}

#[inline(always)]
fn unwind_if_cancelled(fiber: &Running) {
    if fiber.cancelled.get() {
        unwind_unless_shielded(fiber);
    }
}

/// The fiber was dropped while it waited.
#[cold]
#[inline(never)]
fn unwind_unless_shielded(fiber: &Running) {
    if fiber.shields.get() == 0 {
        fiber.raise_cancelled();
    }
}

/// Waits for a future that does not panic; never unwinds, also if the fiber is dropped meanwhile.
#[track_caller]
pub(crate) fn wait_shielded<T>(future: impl Future<Output = T>) -> T {
    let fiber = suspends(Hot::here(), stack_pointer());
    if let Some(fiber) = fiber {
        fiber.shields.set(fiber.shields.get() + 1);
    }
    let value = wait(future);
    if let Some(fiber) = fiber {
        fiber.shields.set(fiber.shields.get() - 1);
    }
    value
}

/// Has the thread look at what it waits for, if it does.
pub(crate) fn look_again(hot: &Hot) {
    if hot.waits.get() != 0 {
        hot.parker().unpark();
    }
}

/// Waits by blocking the thread.
#[inline(never)]
pub(crate) fn park_until(
    hot: &'static Hot,
    sp: usize,
    caller: &'static Location<'static>,
    future: Function,
    poll: &mut dyn FnMut(&mut Context<'_>) -> bool,
) {
    record::attach_if_new(hot, sp);
    let ended = Waiting::begin(hot, caller, future);
    let parker = hot.parker();
    let waker = parker.waker();
    let mut context = Context::from_waker(&waker);
    if !poll(&mut context) {
        host_runtime::blocking(caller, |blocked| {
            loop {
                loop {
                    if parker.take_token() {
                        break;
                    }
                    if !hot.run_meanwhile() && blocked.park(parker) {
                        break;
                    }
                }
                if poll(&mut context) {
                    break;
                }
            }
        });
    }
    drop(ended);
    record::detach_if_exiting(hot);
}

/// A wait that blocks the thread.
struct Waiting {
    hot: &'static Hot,
    _kept: KeptRecord,
    /// What is shown of the wait further out.
    outer: Waits,
}

impl Waiting {
    fn begin(hot: &'static Hot, at: &'static Location<'static>, future: Function) -> Self {
        hot.waits.set(hot.waits.get() + 1);
        let outer = hot.waits_for.copy();
        hot.waits_for.begin(at, future);
        Waiting { hot, _kept: KeptRecord::of(hot), outer }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let others = self.hot.waits.get() - 1;
        self.hot.waits.set(others);
        self.hot.waits_for.set(&self.outer);
        // This wait may have taken notice of what woke an outer one.
        look_again(self.hot);
    }
}
