//! tokio around us: what a wait does to be served by it, and to block its threads as it wants them to be blocked.
//!
//! Without the feature `tokio`, a wait knows of no runtime but ours.

use std::cell::Cell;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::config::settings;
use crate::quiet::report;
use crate::thread::Parker;

/// How a wait goes on until its future is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The fiber is suspended.
    Suspends,
    /// The thread is blocked.
    Blocks,
}

/// A thread that is blocked.
pub(crate) struct Blocked {
    /// When to say that it may be for ever, if it may.
    warn_at: Cell<Option<Instant>>,
    caller: &'static Location<'static>,
}

impl Blocked {
    fn new(caller: &'static Location<'static>, warn: bool) -> Self {
        let after = settings().wait_warning;
        let warn_at = Instant::now().checked_add(after).filter(|_| warn && !after.is_zero());
        Self { warn_at: Cell::new(warn_at), caller }
    }

    /// Sleeps; says whether the thread was woken.
    pub fn park(&self, parker: &Parker) -> bool {
        let woken = parker.park(self.warn_at.get());
        if !woken {
            self.warn_at.set(None);
            report(format_args!(
                "the wait at {} has blocked the thread of a current-thread tokio runtime for {:?}: if what it waits for needs that \
                 runtime (its timers, its sockets, another of its tasks), it waits for ever. Make the call into C in a fiber \
                 (Fiber::new(..).await, with downcall_on_fiber), use a multi-thread runtime, or configure the handle of one \
                 (upcall::config().tokio(..))",
                self.caller,
                settings().wait_warning,
            ));
        }
        woken
    }
}

/// Polls in the context of the runtime that is to serve the future.
#[cfg(not(feature = "tokio"))]
#[inline(always)]
pub(crate) fn poll<F: Future>(future: Pin<&mut F>, context: &mut Context<'_>, _how: How) -> Poll<F::Output> {
    future.poll(context)
}

/// Runs a fiber of ours, wherever the thread is.
#[cfg(all(feature = "runtime", not(feature = "tokio")))]
#[inline(always)]
pub(crate) fn outside_of_tasks(run: impl FnOnce()) {
    run();
}

/// Calls `block`, which blocks the thread.
#[cfg(not(feature = "tokio"))]
pub(crate) fn blocking(caller: &'static Location<'static>, block: impl FnOnce(&Blocked)) {
    block(&Blocked::new(caller, false));
}

#[cfg(all(feature = "runtime", feature = "tokio"))]
pub(crate) use with_tokio::outside_of_tasks;
#[cfg(feature = "tokio")]
pub(crate) use with_tokio::{blocking, poll};

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::cell::Cell;
    use std::pin::pin;
    use std::ptr;
    use std::task::{RawWaker, RawWakerVTable, Waker};

    use stackbounds::stack_pointer;
    use tokio::runtime::{EnterGuard, Handle, RuntimeFlavor};
    use tokio::task::{block_in_place, unconstrained, yield_now};

    use super::*;
    use crate::stack::coroutine::Running;
    use crate::thread::Hot;

    pub(crate) fn poll<F: Future>(
        mut future: Pin<&mut F>,
        context: &mut Context<'_>,
        how: How,
    ) -> Poll<F::Output> {
        let configured = settings().tokio.as_ref().filter(|_| match Handle::try_current() {
            // At the end of a thread nothing can be entered any more.
            Err(error) => error.is_missing_context(),
            // That runtime could not serve what is made now: its thread is the one that is blocked.
            Ok(current) => how == How::Blocks && current.runtime_flavor() == RuntimeFlavor::CurrentThread,
        });
        let _entered = configured.map(Entered::begin);
        match how {
            How::Suspends => future.poll(context),
            // A task that has used up its budget has it renewed when it yields; here it does not.
            How::Blocks => pin!(unconstrained(future.as_mut())).poll(context),
        }
    }

    /// Being in a runtime's context. It is the thread's, so that waits inside the poll block the thread and do not suspend the fiber.
    struct Entered<'a> {
        _guard: EnterGuard<'a>,
        fiber: Option<&'static Running>,
    }

    impl<'a> Entered<'a> {
        fn begin(handle: &'a Handle) -> Self {
            let fiber = Hot::here().fiber_at(stack_pointer());
            fiber.inspect(|fiber| fiber.entered.set(fiber.entered.get() + 1));
            Self { _guard: handle.enter(), fiber }
        }
    }

    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            self.fiber.inspect(|fiber| fiber.entered.set(fiber.entered.get() - 1));
        }
    }

    /// Runs a fiber of ours: the budget of the task that the thread may be in is not the fiber's, which could not have it renewed.
    #[cfg(feature = "runtime")]
    pub(crate) fn outside_of_tasks(run: impl FnOnce()) {
        let mut run = Some(run);
        let run = std::future::poll_fn(|_| Poll::Ready(run.take().map(|run| run())));
        let _ = pin!(unconstrained(run)).poll(&mut Context::from_waker(Waker::noop()));
    }

    pub(crate) fn blocking(caller: &'static Location<'static>, block: impl FnOnce(&Blocked)) {
        match Handle::try_current().map(|current| current.runtime_flavor()) {
            Ok(RuntimeFlavor::CurrentThread) => block(&Blocked::new(caller, schedules_here())),
            Ok(RuntimeFlavor::MultiThread) if schedules_here() => {
                block_in_place(|| block(&Blocked::new(caller, false)));
            }
            _ => block(&Blocked::new(caller, false)),
        }
    }

    thread_local! {
        static WOKEN: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether this thread runs a scheduler of tokio's, rather than having entered its context, in a `LocalSet` for instance, where `block_in_place`
    /// panics. tokio does not tell, but its `yield_now` shows it: a scheduler keeps the waker for later, without one it is woken at once. It keeps the same
    /// waker once, however often it is asked.
    fn schedules_here() -> bool {
        fn clone(_: *const ()) -> RawWaker {
            RawWaker::new(ptr::null(), &VTABLE)
        }
        static VTABLE: RawWakerVTable =
            RawWakerVTable::new(clone, |_| WOKEN.set(true), |_| WOKEN.set(true), |_| ());
        WOKEN.set(false);
        // SAFETY: the functions use nothing but a thread-local of whatever thread calls them.
        let waker = unsafe { Waker::from_raw(clone(ptr::null())) };
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        !WOKEN.get()
    }
}
