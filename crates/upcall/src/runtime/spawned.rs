//! One fiber of an executor: from its closure to its joiner.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use async_task::FallibleTask;

use super::queue::Queue;
use super::runnable::{Meta, ReadyFiber, Runnable};
use super::tame_waker::with_tame;
use crate::coroutine::FiberContext;
use crate::crossing::Refusal;
use crate::drop_guards::IgnoreDropPanic;
use crate::fiber::wait::wait_for_ours;
use crate::fiber::{Builder, Fiber};
use crate::messages::warn;
use crate::sync::lock;
use crate::thread::waker;

/// The future polled by an executor. The first poll makes the fiber, on the fiber's thread.
enum Spawned<F, T: 'static> {
    New(IgnoreDropPanic<F>, Option<Box<Builder>>),
    Begun(IgnoreDropPanic<Fiber<T>>),
    Ended,
}

/// The end of a task: a value, or the reason for having none.
type Ending<T> = IgnoreDropPanic<Result<T, Failure>>;

enum Failure {
    Panicked(Box<dyn Any + Send>),
    NoStack(Refusal),
}

impl<F: FnOnce() -> T + 'static, T: 'static> Future for Spawned<F, T> {
    type Output = Ending<T>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ending<T>> {
        // SAFETY: nothing in a task relies on its address: a fiber's code is on its own stack.
        let task = unsafe { self.get_unchecked_mut() };
        if let Spawned::New(..) = task {
            if let Err(refusal) = task.begin() {
                report_not_begun(&refusal);
                return Poll::Ready(IgnoreDropPanic::new(Err(Failure::NoStack(refusal))));
            }
        }
        let Spawned::Begun(fiber) = task else { unreachable!("async-task polls no task that has ended") };
        match fiber.poll_result(context) {
            Poll::Pending => {
                if let Some(running) =
                    fiber.running().filter(|running| running.executor.at_end.get().is_none())
                {
                    first_wait(running, context);
                }
                Poll::Pending
            }
            Poll::Ready(result) => {
                *task = Spawned::Ended;
                Poll::Ready(IgnoreDropPanic::new(result.map_err(Failure::Panicked)))
            }
        }
    }
}

impl<F: FnOnce() -> T + 'static, T: 'static> Spawned<F, T> {
    /// Makes the fiber, on the calling thread.
    #[inline(never)]
    fn begin(&mut self) -> Result<(), Refusal> {
        let Spawned::New(f, builder) = std::mem::replace(self, Spawned::Ended) else {
            unreachable!("upcall: a fiber begins once")
        };
        let builder = builder.map_or_else(Builder::new, |builder| *builder);
        let fiber = builder.build(f.into_inner())?;
        fiber.belongs_to_task();
        *self = Spawned::Begun(IgnoreDropPanic::new(fiber));
        Ok(())
    }
}

/// Reports, once, a fiber that could not begin. Its handle may have been dropped, and C has none.
#[cold]
fn report_not_begun(refusal: &Refusal) {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if !REPORTED.swap(true, Relaxed) {
        warn(format_args!(
            "a fiber was not begun, and never will be: {refusal}. Later ones are not reported"
        ));
    }
}

/// Registers a fiber at its first wait. A fiber without any wait is spared the cost.
#[cold]
fn first_wait(fiber: &FiberContext, context: &Context<'_>) {
    let queue = Queue::own().expect("upcall: a fiber runs on a thread with a run queue");
    fiber.executor.spawned_at.set(queue.runs());
    if queue.event.is_some() {
        fiber.executor.task.set(Some(context.waker().clone()));
    }
    queue.list(fiber);
}

/// Makes a task for `home`, or for whoever begins it. The caller schedules it once.
///
/// # Safety
/// The closure and its result must be `Send`, or `home` must be the calling thread's queue.
pub(super) unsafe fn new<T: 'static>(
    home: Option<&'static Queue>,
    builder: Option<Box<Builder>>,
    spawned_at: &'static Location<'static>,
    f: impl FnOnce() -> T + 'static,
) -> (Runnable, JoinHandle<T>) {
    let make = async_task::Builder::new().metadata(Meta::new(home, spawned_at));
    // SAFETY: only the thread of the fiber's home polls and drops the future, from its beginning
    // on. Until then, the future is `Send`, or made by that same thread: the caller guarantees
    // this. All captured values are 'static, and any thread may call `schedule`. (It is passed as a
    // type without size, sparing async-task two atomic operations a call.)
    let (runnable, task) =
        unsafe { make.spawn_unchecked(|_| Spawned::New(IgnoreDropPanic::new(f), builder), schedule) };
    let meta = Some(NonNull::from(task.metadata()));
    (runnable.into(), JoinHandle { state: Mutex::new(State::Running(task.fallible())), meta })
}

/// The reason why a fiber or an operation was refused.
pub(crate) enum Refused {
    Closed,
    /// No worker could be started.
    NoThread(io::Error),
    /// The thread has no `LocalRuntime`.
    NoRuntime,
    /// The caller is in a signal handler, or an allocator. It has interrupted code that may hold a
    /// lock.
    Interrupts,
    /// The `LocalRuntime` of the handle has ended.
    RuntimeEnded,
}

/// Queues a woken fiber at its home.
fn schedule(fiber: ReadyFiber) {
    let home = fiber.metadata().home();
    home.expect("upcall: who wakes a fiber was polled by it, so it has begun").push(fiber.into());
}

/// A handle on a fiber: waits for the fiber's end and result, or ends the fiber.
///
/// [`spawn`](crate::Fibers::spawn) returns it. It is a future, for `async` code;
/// [`join`](Self::join) waits from anywhere else. If it is dropped, the fiber continues by itself,
/// and its result or panic is lost. **Deadlock:** a fiber that joins itself, or two that join each
/// other, wait for ever.
pub struct JoinHandle<T: 'static> {
    state: Mutex<State<T>>,
    /// The fiber's `Meta`, if there is a fiber. Alive while the state has its task.
    meta: Option<NonNull<Meta>>,
}

enum State<T: 'static> {
    Running(FallibleTask<Ending<T>, Meta>),
    /// The future to poll for the fiber's end, and the last waker to be woken by it.
    Aborting(Pin<Box<dyn Future<Output = Option<Ending<T>>>>>, Option<Waker>),
    Aborted(Option<Ending<T>>),
    Refused(Refused),
    Taken,
}

// SAFETY: two parts of it are not `Send` by themselves. The boxed future of an abort only holds a
// task of a `T`, as `State::Running` does. The pointer leads to a `Meta`, and all threads may use
// that.
unsafe impl<T: Send + 'static> Send for JoinHandle<T> {}
// SAFETY: as for `Send`. Shared references reach the state only under its lock.
unsafe impl<T: Send + 'static> Sync for JoinHandle<T> {}

impl<T: 'static> JoinHandle<T> {
    pub(super) fn refused(why: Refused) -> Self {
        Self { state: Mutex::new(State::Refused(why)), meta: None }
    }

    /// Whether the unfinished fiber exists only in the process from which this one was forked. The
    /// caller has found the task in the state.
    fn is_lost(&self) -> bool {
        // SAFETY: the task is in the state, as the caller has found, and keeps the `Meta` alive.
        self.meta.is_some_and(|meta| unsafe { meta.as_ref() }.is_lost())
    }

    /// Waits for the fiber's end, and returns its result.
    ///
    /// # Errors
    /// If the fiber panicked, was aborted, never began, or runs only in the process from which this
    /// one was forked: see [`JoinError`].
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        let _joining = Queue::own().map(|own| own.join(self.meta));
        wait_for_ours(self)
    }

    /// Whether the fiber has ended.
    ///
    /// Also `true` if it runs only in the process from which this one was forked.
    pub fn is_finished(&self) -> bool {
        let mut state = lock(&self.state);
        if let State::Aborting(end, waker) = &mut *state {
            // Poll with the waker of whoever awaits the handle, so that it stays the one to be
            // woken.
            match end.as_mut().poll(&mut Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()))) {
                Poll::Ready(ending) => *state = State::Aborted(ending),
                Poll::Pending => return self.is_lost(),
            }
        }
        match &*state {
            State::Running(task) => task.is_finished() || self.is_lost(),
            _ => true,
        }
    }

    /// Ends the fiber at its current wait, or at its next one.
    ///
    /// If the fiber waits, it is dropped there, on its thread: see [`Fiber`] for the effects. If it
    /// runs, it is dropped at its next wait. If it ends before that, its result may still arrive,
    /// or be lost.
    ///
    /// Returns at once; [`join`](Self::join) waits for the end.
    pub fn abort(&self) {
        let mut state = lock(&self.state);
        if let State::Running(task) = &*state {
            if task.is_finished() {
                return;
            }
            let State::Running(task) = std::mem::replace(&mut *state, State::Taken) else { unreachable!() };
            // The first poll of this future cancels the fiber; later ones only ask.
            *state = State::Aborting(Box::pin(task.cancel()), None);
            drop(state);
            self.is_finished();
        }
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: no part of the handle is pinned: a task's handle may move, and the other future
        // is boxed.
        let handle = unsafe { self.get_unchecked_mut() };
        let state = handle.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let polled = match state {
            State::Running(task) => with_tame(context, |context| Pin::new(task).poll(context)),
            State::Aborting(end, waker) => with_tame(context, |context| {
                waker::discard(waker.replace(context.waker().clone()));
                end.as_mut().poll(context)
            }),
            State::Aborted(ending) => Poll::Ready(ending.take()),
            State::Refused(_) => Poll::Ready(None),
            State::Taken => panic!("a JoinHandle was polled after it had given its result"),
        };
        // SAFETY: the poll was pending, so the task is in the state and keeps the `Meta` alive.
        if polled.is_pending() && handle.meta.is_some_and(|meta| unsafe { meta.as_ref() }.is_lost()) {
            if let State::Running(task) = std::mem::replace(state, State::Taken) {
                task.detach();
            }
            return Poll::Ready(Err(JoinError(JoinErrorKind::Lost)));
        }
        let ending = ready!(polled);
        let result = match (ending.map(IgnoreDropPanic::into_inner), std::mem::replace(state, State::Taken)) {
            (Some(Ok(value)), _) => return Poll::Ready(Ok(value)),
            (Some(Err(Failure::Panicked(payload))), _) => JoinErrorKind::Panicked(payload),
            (Some(Err(Failure::NoStack(refusal))), _) => JoinErrorKind::NoStack(refusal),
            (None, State::Refused(why)) => JoinErrorKind::Refused(why),
            (None, _) => JoinErrorKind::Aborted,
        };
        Poll::Ready(Err(JoinError(result)))
    }
}

impl<T: 'static> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Running(task) = std::mem::replace(state, State::Taken) {
            task.detach();
        }
    }
}

impl<T: 'static> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// The reason why a fiber gave no result.
pub struct JoinError(JoinErrorKind);

enum JoinErrorKind {
    Panicked(Box<dyn Any + Send>),
    Aborted,
    Refused(Refused),
    NoStack(Refusal),
    Lost,
}

impl JoinError {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self(JoinErrorKind::Panicked(payload))
    }

    /// Whether the fiber panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, JoinErrorKind::Panicked(_))
    }

    /// Whether the fiber was aborted, or its `LocalRuntime` dropped.
    pub fn is_aborted(&self) -> bool {
        matches!(self.0, JoinErrorKind::Aborted)
    }

    /// Whether the fiber never began.
    ///
    /// The reasons: [`shutdown`](crate::shutdown) had been called; there was no thread, stack or
    /// `LocalRuntime` for it; the `LocalRuntime` had ended; or a signal handler had interrupted
    /// `spawn` itself.
    pub fn is_refused(&self) -> bool {
        matches!(self.0, JoinErrorKind::Refused(_) | JoinErrorKind::NoStack(_))
    }

    /// Whether the fiber runs in the process from which this one was forked, and not here.
    pub fn is_lost(&self) -> bool {
        matches!(self.0, JoinErrorKind::Lost)
    }

    /// Returns the panic's payload, for `std::panic::resume_unwind`.
    ///
    /// # Errors
    /// If the fiber did not panic. The error is `self`.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.0 {
            JoinErrorKind::Panicked(payload) => Ok(payload),
            kind => Err(JoinError(kind)),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            JoinErrorKind::Panicked(payload) => write!(out, "the fiber panicked: {}", crate::crossing::message_of(&**payload)),
            JoinErrorKind::Aborted => out.write_str("the fiber was aborted"),
            JoinErrorKind::Lost => out.write_str(
                "the fiber runs only in the process that this one was forked from: spawn what the child needs in the child",
            ),
            JoinErrorKind::Refused(Refused::Closed) => out.write_str(
                "the fiber was not begun: upcall::shutdown has been called, after which nothing is spawned any more",
            ),
            JoinErrorKind::Refused(Refused::NoThread(error)) => {
                write!(out, "the fiber was not begun: no worker thread could be started: {error}")
            }
            JoinErrorKind::Refused(Refused::Interrupts) => out.write_str(
                "the fiber was not begun: a signal handler, or an allocator, has spawned it in the middle of upcall's own code; \
                 have the handler wake a fiber that spawns",
            ),
            JoinErrorKind::Refused(Refused::NoRuntime) => out.write_str(
                "the fiber was not begun: this thread has no LocalRuntime; make one (Fibers::local_runtime, or local_begin in C)",
            ),
            JoinErrorKind::Refused(Refused::RuntimeEnded) => out.write_str(
                "the fiber was not begun: the LocalRuntime that the handle adds to has ended, or its thread has, or it is only in the process \
                 that this one was forked from",
            ),
            JoinErrorKind::NoStack(refusal) => write!(out, "the fiber was not begun: {refusal}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("JoinError").field(&format_args!("{self}")).finish()
    }
}

impl std::error::Error for JoinError {}

// SAFETY: only the payload is not `Sync`. A shared reference can do no more with it than read it as
// a string, if it is one.
unsafe impl Sync for JoinError {}
