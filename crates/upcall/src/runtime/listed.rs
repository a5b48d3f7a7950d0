//! The list of a queue's fibers: those that have waited and not ended.

use std::ptr::NonNull;

use super::queue::Queue;
use crate::coroutine::FiberContext;
use crate::sync::atomic::Ordering::Relaxed;

/// The head of a list of fibers. Rule: **its members are alive**: each leaves the list before it
/// ends (`at_end`).
pub(super) struct Listed(pub(super) Option<NonNull<FiberContext>>);

// SAFETY: the list is used only under its lock, and its members are alive.
unsafe impl Send for Listed {}

impl Queue {
    /// Lists a waiting fiber, until its end. Only on its thread.
    #[cold]
    pub fn list(&self, fiber: &FiberContext) {
        let mut head = self.fibers.lock();
        fiber.executor.next.set(head.0);
        // SAFETY: members of the list are alive, by the rule of `Listed`.
        if let Some(next) = head.0.map(|next| unsafe { next.as_ref() }) {
            next.executor.previous.set(Some(fiber.into()));
        }
        head.0 = Some(fiber.into());
        self.begun.store(self.begun() + 1, Relaxed);
        fiber
            .executor
            .at_end
            .set(Some(|fiber| Queue::own().expect("upcall: a fiber ends on its own thread").unlist(fiber)));
    }

    fn unlist(&self, fiber: &FiberContext) {
        let mut head = self.fibers.lock();
        self.begun.store(self.begun() - 1, Relaxed);
        let (next, previous) = (fiber.executor.next.get(), fiber.executor.previous.get());
        // SAFETY: members of the list are alive, by the rule of `Listed`.
        match previous.map(|previous| unsafe { previous.as_ref() }) {
            Some(previous) => previous.executor.next.set(next),
            None => head.0 = next,
        }
        // SAFETY: members of the list are alive, by the rule of `Listed`.
        if let Some(next) = next.map(|next| unsafe { next.as_ref() }) {
            next.executor.previous.set(previous);
        }
    }

    /// Calls `look` for each fiber that has waited and not ended.
    ///
    /// If the fiber belongs to another thread, `look` may read only its name, and the places of its
    /// spawning and its wait.
    pub fn for_each_fiber(&self, mut look: impl FnMut(&FiberContext)) {
        let head = self.fibers.lock();
        let mut next = head.0;
        // SAFETY: members of the list are alive, by the rule of `Listed`.
        while let Some(fiber) = next.map(|fiber| unsafe { fiber.as_ref() }) {
            look(fiber);
            next = fiber.executor.next.get();
        }
    }

    pub fn has_fibers(&self) -> bool {
        self.fibers.lock().0.is_some()
    }
}
