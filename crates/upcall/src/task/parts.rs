//! Results that come in parts: a bounded queue between an operation and C.

use std::any::Any;
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, Waker};

use super::cell::TaskCell;
use super::watchers;
use crate::drop_guards::drop_ignoring_panics;
use crate::thread::waker;

/// Sends the parts of a task's result:
/// [`TaskBuilder::start_parts`](crate::TaskBuilder::start_parts) gives it to the operation.
pub struct PartSender<P>(Arc<Parts<P>>);

/// The error of a part that nobody will take: C has freed the task. It contains the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NobodyTakes<P>(pub P);

impl<P> fmt::Display for NobodyTakes<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("nobody takes the part: C has freed the task")
    }
}

impl<P: fmt::Debug> std::error::Error for NobodyTakes<P> {}

impl<P> fmt::Debug for PartSender<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PartSender").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}

impl<P: Send + 'static> PartSender<P> {
    /// Sends a part. While the queue is full, this waits until C has taken one.
    ///
    /// # Errors
    /// If C has freed the task: the part comes back.
    pub async fn send(&mut self, part: P) -> Result<(), NobodyTakes<P>> {
        let mut part = Some(part);
        poll_fn(|context| {
            let waker = context.waker().clone();
            let Some(next) = part.take() else { unreachable!("upcall: a part is sent once") };
            match self.0.push(next, waker) {
                Pushed::Yes => Poll::Ready(Ok(())),
                Pushed::Closed(back) => Poll::Ready(Err(NobodyTakes(back))),
                Pushed::Full(back) => {
                    part = Some(back);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The queue of parts, guarded by the lock of the watchers.
pub(super) struct Parts<P> {
    queue: UnsafeCell<Queue<P>>,
    capacity: usize,
    /// The task, for its watchers.
    cell: OnceLock<Weak<TaskCell>>,
}

struct Queue<P> {
    parts: VecDeque<P>,
    /// The operation, if it waits for room.
    sender: Option<Waker>,
    /// Whether C has freed the task.
    is_closed: bool,
}

// SAFETY: the queue is used only under the lock, and its parts are `Send`.
unsafe impl<P: Send> Sync for Parts<P> {}
// SAFETY: as for `Sync`.
unsafe impl<P: Send> Send for Parts<P> {}

enum Pushed<P> {
    Yes,
    Full(P),
    Closed(P),
}

impl<P: Send + 'static> Parts<P> {
    /// Makes a queue for `capacity` parts, at least one.
    pub fn new(capacity: usize) -> (Arc<Self>, PartSender<P>) {
        let queue = UnsafeCell::new(Queue { parts: VecDeque::new(), sender: None, is_closed: false });
        let parts = Arc::new(Self { queue, capacity: capacity.max(1), cell: OnceLock::new() });
        (parts.clone(), PartSender(parts))
    }

    fn push(&self, part: P, waker: Waker) -> Pushed<P> {
        let held = watchers::lock();
        // SAFETY: the lock is held.
        let queue = unsafe { &mut *self.queue.get() };
        let (pushed, unused) = if queue.is_closed {
            (Pushed::Closed(part), Some(waker))
        } else if queue.parts.len() == self.capacity {
            (Pushed::Full(part), queue.sender.replace(waker))
        } else {
            queue.parts.push_back(part);
            (Pushed::Yes, Some(waker))
        };
        drop(held);
        waker::discard(unused);
        if let (Pushed::Yes, Some(cell)) = (&pushed, self.cell.get().and_then(Weak::upgrade)) {
            if cell.state().is_watched() {
                watchers::tell(&cell);
            }
        }
        pushed
    }

    /// Takes the next part, and wakes the operation.
    pub fn pop(&self) -> Option<P> {
        let held = watchers::lock();
        // SAFETY: the lock is held.
        let queue = unsafe { &mut *self.queue.get() };
        let part = queue.parts.pop_front()?;
        let sender = queue.sender.take();
        drop(held);
        sender.into_iter().for_each(waker::wake);
        Some(part)
    }
}

/// A queue of parts whose type only the task's author knows.
pub(super) trait AnyParts: Any + Send + Sync {
    /// Tells the queue its task, before the operation is polled.
    fn belong_to(&self, cell: &Arc<TaskCell>);
    fn as_any(&self) -> &dyn Any;
    /// Whether no part is in the queue.
    fn is_empty(&self) -> bool;
    /// Ends the queue: C has freed the task.
    fn close(&self);
}

impl<P: Send + 'static> AnyParts for Parts<P> {
    fn belong_to(&self, cell: &Arc<TaskCell>) {
        let _ = self.cell.set(Arc::downgrade(cell));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_empty(&self) -> bool {
        let _held = watchers::lock();
        // SAFETY: the lock is held.
        unsafe { &*self.queue.get() }.parts.is_empty()
    }

    fn close(&self) {
        let held = watchers::lock();
        // SAFETY: the lock is held.
        let queue = unsafe { &mut *self.queue.get() };
        queue.is_closed = true;
        let (parts, sender) = (std::mem::take(&mut queue.parts), queue.sender.take());
        drop(held);
        sender.into_iter().for_each(waker::wake);
        drop_ignoring_panics(|| drop(parts));
    }
}
