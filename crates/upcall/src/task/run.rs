//! The future of a task's operation, as its executor polls it.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::TaskStatus;
use super::cell::{Outcome, TaskCell};
use crate::crossing::message_of;
use crate::drop_guards::{IgnoreDropPanic, drop_ignoring_panics};
use crate::fiber::host_runtime::{self, How};
use crate::fiber::wait::Needs;
use crate::runtime::Timer;

/// An operation with the cell of its task. The cell gets one end in any case, after the drop of the
/// operation.
pub(super) struct Run<F> {
    /// `None` once the operation has ended.
    cell: Option<Arc<TaskCell>>,
    operation: Option<F>,
}

impl<F> Run<F> {
    pub fn new(cell: Arc<TaskCell>, operation: F) -> Self {
        Self { cell: Some(cell), operation: Some(operation) }
    }

    /// Drops the operation, and ends its task.
    fn end(self: Pin<&mut Self>, outcome: Outcome) {
        // SAFETY: nothing moves: the operation is dropped in its place, and the cell is not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let Some(cell) = this.cell.take() else { return };
        drop_ignoring_panics(|| this.operation = None);
        cell.end(outcome);
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
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(payload) => {
                let payload = IgnoreDropPanic::new(payload);
                Outcome::Panicked(message_of(&**payload))
            }
        };
        self.end(outcome);
        Poll::Ready(())
    }
}

impl<F> Drop for Run<F> {
    fn drop(&mut self) {
        let Some(cell) = &self.cell else { return };
        let status = if cell.state().is_cancelled() { TaskStatus::Cancelled } else { TaskStatus::Lost };
        // SAFETY: it is being dropped, so it does not move any more.
        unsafe { Pin::new_unchecked(self) }.end(Outcome::Ended(status));
    }
}

/// An operation with a `Result`, to become the outcome.
pub(super) struct Fallible<F>(pub F);

impl<F, T, E> Future for Fallible<F>
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
            Ok(value) => Outcome::Value(Box::new(value)),
            Err(error) => Outcome::Failed(Arc::from(error.into())),
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
                Pin::new(timer).poll(context).map(|()| Outcome::Ended(TaskStatus::DeadlineExceeded))
            }
            ready => ready,
        }
    }
}
