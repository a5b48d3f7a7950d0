//! One fiber of an executor: from the closure to the joiner.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use async_task::FallibleTask;

use super::queue::{Meta, Queue, Runnable};
use crate::crossing::Refusal;
use crate::fiber::{Builder, Fiber, wait};
use crate::quiet::Quiet;
use crate::stack::coroutine::Running;
use crate::sync::lock;

/// The future that an executor polls: its fiber is made at the first poll, by the thread that it is to stay on.
enum Task<F, T: 'static> {
    New(Quiet<F>, Option<Box<Builder>>),
    Begun(Quiet<Fiber<T>>),
    Ended,
}

/// How it ends.
type Ending<T> = Quiet<Result<T, Failure>>;

enum Failure {
    Panicked(Box<dyn Any + Send>),
    NoStack(Refusal),
}

impl<F: FnOnce() -> T + 'static, T: 'static> Future for Task<F, T> {
    type Output = Ending<T>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ending<T>> {
        // SAFETY: nothing here relies on where it is: a fiber's code is on its stack.
        let task = unsafe { self.get_unchecked_mut() };
        if let Task::New(..) = task {
            if let Err(refusal) = task.begin() {
                return Poll::Ready(Quiet::new(Err(Failure::NoStack(refusal))));
            }
        }
        let Task::Begun(fiber) = task else { unreachable!("async-task polls no task that has ended") };
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
                *task = Task::Ended;
                Poll::Ready(Quiet::new(result.map_err(Failure::Panicked)))
            }
        }
    }
}

impl<F: FnOnce() -> T + 'static, T: 'static> Task<F, T> {
    /// Makes the fiber.
    #[inline(never)]
    fn begin(&mut self) -> Result<(), Refusal> {
        let Task::New(f, builder) = std::mem::replace(self, Task::Ended) else {
            unreachable!("upcall: a fiber begins once")
        };
        let builder = builder.map_or_else(Builder::default, |builder| *builder);
        *self = Task::Begun(Quiet::new(builder.build(f.into_inner())?));
        Ok(())
    }
}

/// Notes a fiber that waits for the first time: one that never does is spared it.
#[cold]
fn first_wait(fiber: &Running, context: &Context<'_>) {
    let queue = Queue::own().expect("upcall: a fiber runs on a thread with a run queue");
    fiber.executor.spawned_at.set(queue.runs());
    if queue.event.is_some() {
        fiber.executor.task.set(Some(context.waker().clone()));
    }
    queue.list(fiber);
}

/// A fiber for `home`, or for whoever begins it. To be scheduled once.
///
/// # Safety
/// The closure and its result are `Send`, or the `home` given is the calling thread's.
pub(super) unsafe fn new<T: 'static>(
    home: Option<&'static Queue>,
    builder: Option<Box<Builder>>,
    spawned_at: &'static Location<'static>,
    f: impl FnOnce() -> T + 'static,
) -> (Runnable, JoinHandle<T>) {
    let make = async_task::Builder::new().metadata(Meta::new(home, spawned_at));
    // SAFETY: the future is polled and dropped by its home's thread only, which begins it; before that it is `Send`, or made by that
    // thread. All is 'static. `schedule` (as a type without size: async-task then spares it two atomic operations a call) may be called
    // from anywhere.
    let (runnable, task) = unsafe { make.spawn_unchecked(|_| Task::New(Quiet::new(f), builder), schedule) };
    let meta = Some(NonNull::from(task.metadata()));
    (runnable, JoinHandle { state: Mutex::new(State::Running(task.fallible())), meta })
}

/// Why a fiber was not taken.
pub(super) enum Refused {
    Closed,
    /// No worker could be started.
    NoThread(io::Error),
    /// The thread has no `LocalRuntime`.
    NoRuntime,
}

/// Called when a fiber that has begun is woken.
fn schedule(runnable: Runnable) {
    let home = runnable.metadata().home();
    home.expect("upcall: who wakes a fiber was polled by it, so it has begun").push(runnable);
}

/// What [`spawn`](crate::spawn) gives: to wait for the fiber's end and result, and to end it.
///
/// It is a future, for code that is `async`; [`join`](Self::join) waits from anywhere else. Dropping it lets the fiber go on by itself;
/// its result, or panic, is then lost. A fiber that joins itself, or two that join each other, wait for ever.
pub struct JoinHandle<T: 'static> {
    state: Mutex<State<T>>,
    /// What is known of the fiber, if there is one; alive while the state has its task.
    meta: Option<NonNull<Meta>>,
}

enum State<T: 'static> {
    Running(FallibleTask<Ending<T>, Meta>),
    /// What is polled for its end, and who asked for it last.
    Aborting(Pin<Box<dyn Future<Output = Option<Ending<T>>>>>, Option<Waker>),
    Aborted(Option<Ending<T>>),
    Refused(Refused),
    Taken,
}

// SAFETY: what makes it neither is the boxed future of an abort, which holds a task of a `T`, as `Running` does; and the pointer to the `Meta`, which is for all
// threads.
unsafe impl<T: Send + 'static> Send for JoinHandle<T> {}
// SAFETY: as above; shared, the state is under its lock.
unsafe impl<T: Send + 'static> Sync for JoinHandle<T> {}

impl<T: 'static> JoinHandle<T> {
    pub(super) fn refused(why: Refused) -> Self {
        Self { state: Mutex::new(State::Refused(why)), meta: None }
    }

    /// Whether the fiber, which has not ended, is only in the process that this one was forked from. For who has found the task in the state.
    fn is_lost(&self) -> bool {
        // SAFETY: the task in the state keeps it alive.
        self.meta.is_some_and(|meta| unsafe { meta.as_ref() }.is_lost())
    }

    /// Waits for the fiber's end.
    ///
    /// # Errors
    /// When it panicked, was aborted, never began, or runs only in the process that this one was forked from: see [`JoinError`].
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        wait(self)
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        let mut state = lock(&self.state);
        if let State::Aborting(end, waker) = &mut *state {
            // Nobody else's poll: whoever awaits the handle is to stay the one who is woken.
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

    /// Ends the fiber: if it waits, it is dropped where it waits, on its thread; see [`Fiber`] for what that means. If it runs, that happens
    /// when it waits the next time. If it ends before, its result is there all the same or lost.
    ///
    /// Returns at once; [`join`](Self::join) waits until it has ended.
    pub fn abort(&self) {
        let mut state = lock(&self.state);
        if let State::Running(task) = &*state {
            if task.is_finished() {
                return;
            }
            let State::Running(task) = std::mem::replace(&mut *state, State::Taken) else { unreachable!() };
            // Its first poll, of many, is what cancels.
            *state = State::Aborting(Box::pin(task.cancel()), None);
            drop(state);
            self.is_finished();
        }
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: nothing is moved out of the handle that was pinned: a task's handle may move, and the other future is boxed.
        let handle = unsafe { self.get_unchecked_mut() };
        let state = handle.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let polled = match state {
            State::Running(task) => Pin::new(task).poll(context),
            State::Aborting(end, waker) => {
                *waker = Some(context.waker().clone());
                end.as_mut().poll(context)
            }
            State::Aborted(ending) => Poll::Ready(ending.take()),
            State::Refused(_) => Poll::Ready(None),
            State::Taken => panic!("a JoinHandle was polled after it had given its result"),
        };
        // SAFETY: what is pending is in the state, and keeps it alive.
        if polled.is_pending() && handle.meta.is_some_and(|meta| unsafe { meta.as_ref() }.is_lost()) {
            if let State::Running(task) = std::mem::replace(state, State::Taken) {
                task.detach();
            }
            return Poll::Ready(Err(JoinError(Kind::Lost)));
        }
        let ending = ready!(polled);
        let result = match (ending.map(Quiet::into_inner), std::mem::replace(state, State::Taken)) {
            (Some(Ok(value)), _) => return Poll::Ready(Ok(value)),
            (Some(Err(Failure::Panicked(payload))), _) => Kind::Panicked(payload),
            (Some(Err(Failure::NoStack(refusal))), _) => Kind::NoStack(refusal),
            (None, State::Refused(why)) => Kind::Refused(why),
            (None, _) => Kind::Aborted,
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

/// Why a fiber gave no result.
pub struct JoinError(Kind);

enum Kind {
    Panicked(Box<dyn Any + Send>),
    Aborted,
    Refused(Refused),
    NoStack(Refusal),
    Lost,
}

impl JoinError {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self(Kind::Panicked(payload))
    }

    /// Whether it panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panicked(_))
    }

    /// Whether it was aborted, or its `LocalRuntime` dropped.
    pub fn is_aborted(&self) -> bool {
        matches!(self.0, Kind::Aborted)
    }

    /// Whether it never began: because [`shutdown`](crate::shutdown) had been called, or there was no thread, stack or `LocalRuntime` for it.
    pub fn is_refused(&self) -> bool {
        matches!(self.0, Kind::Refused(_) | Kind::NoStack(_))
    }

    /// Whether it runs in the process that this one was forked from, and not here.
    pub fn is_lost(&self) -> bool {
        matches!(self.0, Kind::Lost)
    }

    /// The panic's payload, for `std::panic::resume_unwind`.
    ///
    /// # Errors
    /// Gives itself back if it was no panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.0 {
            Kind::Panicked(payload) => Ok(payload),
            kind => Err(JoinError(kind)),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Panicked(payload) => write!(out, "the fiber panicked: {}", crate::crossing::message_of(&**payload)),
            Kind::Aborted => out.write_str("the fiber was aborted"),
            Kind::Lost => out.write_str(
                "the fiber runs only in the process that this one was forked from: spawn what the child needs in the child",
            ),
            Kind::Refused(Refused::Closed) => out.write_str(
                "the fiber was not begun: upcall::shutdown has been called, after which nothing is spawned any more",
            ),
            Kind::Refused(Refused::NoThread(error)) => {
                write!(out, "the fiber was not begun: no worker thread could be started: {error}")
            }
            Kind::Refused(Refused::NoRuntime) => out.write_str(
                "the fiber was not begun: this thread has no LocalRuntime; make one (LocalRuntime::new, upcall_local_begin)",
            ),
            Kind::NoStack(refusal) => write!(out, "the fiber was not begun: {refusal}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("JoinError").field(&format_args!("{self}")).finish()
    }
}

impl std::error::Error for JoinError {}

// SAFETY: all that is not Sync is the payload, and a shared reference gives no way to it but to ask whether it is a string.
unsafe impl Sync for JoinError {}
