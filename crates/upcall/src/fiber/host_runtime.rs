//! A runtime of tokio around us: how it serves a wait, and how a wait blocks its threads in tokio's
//! way.
//!
//! Without the feature `tokio`, waits know of no runtime but ours.

use std::future::Future;
#[cfg(not(feature = "tokio"))]
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::blocked::Blocked;
use super::wait::Needs;

/// What a wait does until its future is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It suspends the fiber.
    Suspends,
    /// It blocks the thread.
    Blocks,
}

/// Converts into the future to poll.
#[cfg(not(feature = "tokio"))]
#[inline(always)]
pub(crate) fn future_of<F: IntoFuture>(future: F) -> F::IntoFuture {
    future.into_future()
}

/// Polls in the context of the runtime serving the future; here, there is none.
#[cfg(not(feature = "tokio"))]
#[inline(always)]
pub(crate) fn poll<F: Future>(
    future: Pin<&mut F>,
    context: &mut Context<'_>,
    _how: How,
    _needs: Needs,
) -> Poll<F::Output> {
    future.poll(context)
}

/// Runs a fiber of ours, inside tokio's tasks or outside.
#[cfg(all(feature = "runtime", not(feature = "tokio")))]
#[inline(always)]
pub(crate) fn outside_of_tasks(run: impl FnOnce()) {
    run();
}

/// Whether a poll of a wait is in progress on this thread, in a runtime entered for it.
#[cfg(not(feature = "tokio"))]
pub(super) fn is_in_entered_poll() -> bool {
    false
}

/// Calls `block` to block the thread.
#[cfg(not(feature = "tokio"))]
pub(super) fn blocking(blocked: Blocked<'_>, block: impl FnOnce(&Blocked<'_>)) {
    block(&blocked);
}

#[cfg(all(feature = "runtime", feature = "tokio"))]
pub(crate) use with_tokio::outside_of_tasks;
#[cfg(feature = "tokio")]
pub(crate) use with_tokio::poll;
#[cfg(feature = "tokio")]
pub(super) use with_tokio::{blocking, future_of, is_in_entered_poll};

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::cell::Cell;
    use std::future::IntoFuture;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::pin::pin;
    use std::ptr;
    use std::task::{RawWaker, RawWakerVTable, Waker};

    use stackbounds::stack_pointer;
    use tokio::runtime::{EnterGuard, Handle, RuntimeFlavor};
    use tokio::task::{block_in_place, unconstrained, yield_now};

    use super::*;
    use crate::coroutine::FiberContext;
    use crate::coroutine::polling::Counted;
    use crate::drop_guards::IgnoreDropPanic;
    use crate::fiber::blocked::WaitKind;
    use crate::fiber::tokio_runtime;
    use crate::thread::ThreadState;

    /// Converts into the future at the first poll, in the context of the runtime serving it.
    #[inline(always)]
    pub(crate) async fn future_of<F: IntoFuture>(future: F) -> F::Output {
        future.await
    }

    pub(crate) fn poll<F: Future>(
        mut future: Pin<&mut F>,
        context: &mut Context<'_>,
        how: How,
        needs: Needs,
    ) -> Poll<F::Output> {
        let enter = if needs == Needs::Nothing { None } else { to_be_entered(how) };
        let _entered = enter.as_ref().map(|(handle, beneath)| Entered::begin(handle, *beneath));
        match how {
            How::Suspends => future.poll(context),
            // A task that has used up its budget gets a new one when it yields. A blocking wait
            // does not yield.
            How::Blocks => pin!(unconstrained(future.as_mut())).poll(context),
        }
    }

    /// The runtime to enter for a poll, and what is beneath it. There is one to enter if the thread
    /// is in no runtime, or in one that cannot serve what is made now.
    fn to_be_entered(how: How) -> Option<(Handle, Beneath)> {
        let beneath = match Handle::try_current() {
            Err(error) if error.is_missing_context() => Beneath::NoOther,
            // Nobody else drives the runtime: its thread is the blocked one.
            Ok(current) if how == How::Blocks && current.runtime_flavor() == RuntimeFlavor::CurrentThread => {
                if schedules_here() {
                    Beneath::OnlyThread
                } else {
                    Beneath::NoOther
                }
            }
            // At the end of a thread, nothing can be entered any more.
            Ok(_) | Err(_) => return None,
        };
        Some((tokio_runtime::handle()?, beneath))
    }

    /// The context of an entered runtime. It belongs to the thread, so waits inside the poll block
    /// the thread and do not suspend the fiber.
    struct Entered<'a> {
        _guard: EnterGuard<'a>,
        _blocks: Option<Counted<'static>>,
        _over: Over,
    }

    impl<'a> Entered<'a> {
        #[inline(always)]
        fn begin(handle: &'a Handle, beneath: Beneath) -> Self {
            let fiber = ThreadState::current().fiber_at(stack_pointer());
            Self {
                _over: Over(OVER.replace(beneath)),
                _blocks: fiber.map(FiberContext::enter),
                _guard: handle.enter(),
            }
        }
    }

    thread_local! {
        /// What is beneath the runtime of the innermost [`Entered`].
        static OVER: Cell<Beneath> = const { Cell::new(Beneath::Unknown) };
        /// Set by the waker of [`schedules_here`].
        static WOKEN: Cell<bool> = const { Cell::new(false) };
        /// `block_in_place` has panicked on this thread.
        static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// What is beneath a runtime entered by us.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Beneath {
        /// We have entered none.
        Unknown,
        /// No runtime, or one driven by another thread.
        NoOther,
        /// A current-thread runtime, driven by this thread.
        OnlyThread,
    }

    /// Restores [`OVER`] when it is dropped.
    struct Over(Beneath);

    impl Drop for Over {
        fn drop(&mut self) {
            OVER.set(self.0);
        }
    }

    /// Whether a poll of a wait is in progress on this thread, in a runtime entered for it.
    pub(in crate::fiber) fn is_in_entered_poll() -> bool {
        OVER.get() != Beneath::Unknown
    }

    /// Runs a fiber of ours, outside the budget of any task around it: the fiber could not renew
    /// that budget.
    #[cfg(feature = "runtime")]
    pub(crate) fn outside_of_tasks(run: impl FnOnce()) {
        let mut run = Some(run);
        let run = std::future::poll_fn(|_| Poll::Ready(run.take().map(|run| run())));
        let _ = pin!(unconstrained(run)).poll(&mut Context::from_waker(Waker::noop()));
    }

    pub(in crate::fiber) fn blocking(mut blocked: Blocked<'_>, block: impl FnOnce(&Blocked<'_>)) {
        let flavor = Handle::try_current().map(|current| current.runtime_flavor());
        let beneath = match (OVER.get(), flavor) {
            // A poll is in progress, inside a runtime entered for it. That runtime has other
            // threads.
            (beneath @ (Beneath::OnlyThread | Beneath::NoOther), _) => beneath,
            (Beneath::Unknown, Ok(RuntimeFlavor::CurrentThread)) if schedules_here() => Beneath::OnlyThread,
            (Beneath::Unknown, Ok(RuntimeFlavor::MultiThread)) if schedules_here() && !REFUSED.get() => {
                return as_in_place(&blocked, block);
            }
            _ => Beneath::NoOther,
        };
        if beneath == Beneath::OnlyThread && blocked.kind == WaitKind::Ordinary {
            blocked.kind = WaitKind::OnlyThread;
        }
        block(&blocked);
    }

    /// Blocks a worker of a runtime. The runtime's other tasks continue elsewhere.
    ///
    /// If the context of a multi-thread runtime was entered on the only thread of another one,
    /// `block_in_place` panics before it calls anything. tokio does not tell beforehand. So a
    /// thread tries it, and after a panic never again.
    fn as_in_place(blocked: &Blocked<'_>, block: impl FnOnce(&Blocked<'_>)) {
        let mut block = Some(block);
        let run = || {
            block_in_place(|| {
                if let Some(block) = block.take() {
                    block(blocked);
                }
            });
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
            let Some(block) = block else { resume_unwind(payload) };
            drop(IgnoreDropPanic::new(payload));
            REFUSED.set(true);
            block(blocked);
        }
    }

    /// Whether this thread runs a scheduler of tokio, rather than only having entered its context.
    ///
    /// The latter is the case in a `LocalSet`, for instance, and `block_in_place` panics there.
    /// tokio does not tell, but its `yield_now` shows it: a scheduler keeps the waker for later,
    /// and without a scheduler the waker is woken at once. The scheduler keeps equal wakers once
    /// only, however often this is called.
    fn schedules_here() -> bool {
        fn clone(_: *const ()) -> RawWaker {
            RawWaker::new(ptr::null(), &VTABLE)
        }
        static VTABLE: RawWakerVTable =
            RawWakerVTable::new(clone, |_| WOKEN.set(true), |_| WOKEN.set(true), |_| ());
        WOKEN.set(false);
        // SAFETY: any thread may call the functions at any time: they ignore the pointer, and use
        // only a thread-local of the calling thread.
        let waker = unsafe { Waker::from_raw(clone(ptr::null())) };
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        !WOKEN.get()
    }
}
