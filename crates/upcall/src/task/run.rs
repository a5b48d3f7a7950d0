//! The future of a task's operation, as its executor polls it.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::TaskStatus;
use super::cell::{Outcome, Seed, TaskCell};
use crate::crossing::message_of;
use crate::drop_guards::{IgnoreDropPanic, drop_ignoring_panics};
use crate::fiber::host_runtime::{self, How};
use crate::fiber::wait::Needs;
use crate::runtime::Timer;

/// An operation with the cell of its task. The cell gets one end in any case, after the drop of the
/// operation.
pub(super) struct Run<F> {
    link: Link,
    operation: Option<F>,
}

/// The way from an operation to its task.
enum Link {
    /// The starter makes the first poll. The cell is made if the operation waits.
    Starting(NonNull<Starting>),
    Started(Arc<TaskCell>),
    /// The operation has ended.
    Ended,
}

// SAFETY: `Starting` is left in the first poll, on the starter's thread.
unsafe impl<F: Send> Send for Run<F> {}

/// A first poll by the starter, and its result.
pub(super) struct Starting {
    /// `None` once the cell has been made.
    seed: Option<Seed>,
    result: First,
}

/// The result of a first poll.
enum First {
    None,
    Ended(Outcome),
    /// The operation waits, and has a cell from now on.
    Waits(Arc<TaskCell>),
}

/// An operation after its first poll.
pub(super) enum Polled {
    Ended(Seed, Outcome),
    Waits(Arc<TaskCell>),
}

impl Starting {
    #[inline]
    pub fn new(seed: Seed) -> Self {
        Self { seed: Some(seed), result: First::None }
    }

    /// Makes the cell of an operation that waits.
    fn wait(&mut self) -> Arc<TaskCell> {
        let seed = self.seed.take().expect("upcall: an operation has one first poll");
        let cell = seed.running();
        self.result = First::Waits(cell.clone());
        cell
    }

    /// The operation after the poll.
    #[inline]
    pub fn polled(self) -> Polled {
        match (self.result, self.seed) {
            (First::Ended(outcome), Some(seed)) => Polled::Ended(seed, outcome),
            (First::Waits(cell), _) => Polled::Waits(cell),
            _ => unreachable!("upcall: a first poll has a result"),
        }
    }
}

impl<F> Run<F> {
    /// An operation to be polled first by the starter.
    ///
    /// # Safety
    /// `starting` must stay where it is until that poll has returned, and not be used meanwhile.
    /// The poll must be made on the calling thread.
    pub unsafe fn starting(starting: &mut Starting, operation: F) -> Self {
        Self { link: Link::Starting(NonNull::from(starting)), operation: Some(operation) }
    }

    pub fn started(cell: Arc<TaskCell>, operation: F) -> Self {
        Self { link: Link::Started(cell), operation: Some(operation) }
    }

    /// Drops the operation, and ends its task.
    fn end(self: Pin<&mut Self>, outcome: Outcome) {
        // SAFETY: nothing moves: the operation is dropped in its place, and the link is not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        drop_ignoring_panics(|| this.operation = None);
        match std::mem::replace(&mut this.link, Link::Ended) {
            // SAFETY: this is the first poll, and so the pointer is valid, by the contract of
            // `starting`.
            Link::Starting(mut starting) => unsafe { starting.as_mut() }.result = First::Ended(outcome),
            Link::Started(cell) => cell.end(outcome),
            Link::Ended => {}
        }
    }
}

impl<F: Future<Output = Outcome>> Future for Run<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the operation does not move.
        let operation = unsafe { self.as_mut().map_unchecked_mut(|this| &mut this.operation) };
        let Some(operation) = operation.as_pin_mut() else { return Poll::Ready(()) };
        let poll = || host_runtime::poll(operation, context, How::Suspends, Needs::Anything);
        let outcome = match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(Poll::Pending) => {
                // SAFETY: the operation does not move, and the link is not pinned.
                let link = unsafe { &mut self.get_unchecked_mut().link };
                if let Link::Starting(starting) = link {
                    // SAFETY: this is the first poll, and so the pointer is valid, by the contract
                    // of `starting`.
                    let cell = unsafe { starting.as_mut() }.wait();
                    *link = Link::Started(cell);
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(outcome)) => outcome,
            Err(payload) => {
                let payload = IgnoreDropPanic::new(payload);
                Outcome::panicked(message_of(&**payload))
            }
        };
        self.end(outcome);
        Poll::Ready(())
    }
}

impl<F> Drop for Run<F> {
    fn drop(&mut self) {
        let Link::Started(cell) = &self.link else { return };
        let status = if cell.state().is_cancelled() { TaskStatus::Cancelled } else { TaskStatus::Lost };
        // SAFETY: it is being dropped, so it does not move any more.
        unsafe { Pin::new_unchecked(self) }.end(Outcome::ended(status));
    }
}

/// An operation with a `Result`, to become the outcome.
pub(super) struct WithOutcome<F>(pub F);

impl<F, T, E> Future for WithOutcome<F>
where
    F: Future<Output = Result<T, E>>,
    T: Any + Send,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: the future does not move.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        future.poll(context).map(|result| match result {
            Ok(value) => Outcome::value(value),
            Err(error) => Outcome::failed(Arc::from(error.into())),
        })
    }
}

/// An operation with a deadline.
pub(super) struct Limited<F> {
    pub operation: F,
    pub timer: Timer,
}

impl<F: Future<Output = Outcome>> Future for Limited<F> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: the operation does not move, and a timer is not pinned.
        let (operation, timer) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.operation), &mut this.timer)
        };
        match operation.poll(context) {
            Poll::Pending => {
                Pin::new(timer).poll(context).map(|()| Outcome::ended(TaskStatus::DeadlineExceeded))
            }
            ready => ready,
        }
    }
}
