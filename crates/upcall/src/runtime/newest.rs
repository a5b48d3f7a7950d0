//! The newest fiber of a queue: spawned last, not begun, and kept for whoever joins it.

use std::ptr::{self, NonNull};

use super::queue::Queue;
use super::runnable::{Meta, Runnable};
use crate::sync::Linked;

/// A join in progress, counted until it is dropped: see [`Queue::join`].
pub(super) struct Joining<'a>(&'a Queue);

impl Drop for Joining<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.joining.set(self.0.joining.get().saturating_sub(1));
        self.0.newest_is_joined.set(false);
    }
}

impl Queue {
    /// Keeps a fiber spawned here, for the owner to begin soon. Hands back the previous one.
    #[inline]
    pub fn put_newest(&self, runnable: Runnable) -> Option<Runnable> {
        self.newest_meta.set(runnable.metadata());
        self.newest_is_joined.set(false);
        let before = self.newest.replace(runnable.into_raw());
        // SAFETY: `into_raw` made the pointer. The mailbox gives it to one taker, and the taker
        // owns it.
        before.map(|raw| unsafe { Runnable::from_raw(raw) })
    }

    /// Takes the newest fiber, from any thread.
    #[inline]
    pub fn take_newest(&self) -> Option<Runnable> {
        // SAFETY: `into_raw` made the pointer, and this taker owns it: see `put_newest`.
        self.newest.take().map(|raw| unsafe { Runnable::from_raw(raw) })
    }

    pub fn has_newest(&self) -> bool {
        !self.newest.is_nothing()
    }

    /// Counts the calling frame as joining `fiber`, until the result is dropped. Only on the
    /// owner's thread.
    #[inline]
    pub fn join(&self, fiber: Option<NonNull<Meta>>) -> Joining<'_> {
        self.joining.set(self.joining.get() + 1);
        if fiber.is_some_and(|fiber| ptr::eq(fiber.as_ptr(), self.newest_meta.get())) {
            self.newest_is_joined.set(true);
        }
        Joining(self)
    }

    /// Whether a frame joins the newest fiber. Only on the owner's thread.
    pub fn newest_is_joined(&self) -> bool {
        self.newest_is_joined.get()
    }

    /// The number of fibers begun here and waiting for something else than another fiber: work that
    /// cannot end before they resume. Only on the owner's thread, outside of any fiber.
    #[inline]
    pub fn others(&self) -> usize {
        self.begun().saturating_sub(self.joining.get())
    }

    /// Whether a fiber begun here would be held up if the newest began here too. A fiber waiting
    /// only for the newest's end does not count. Only on the owner's thread, outside of any fiber.
    pub fn newest_keeps_others(&self) -> bool {
        self.others() != 0 || self.begun() != 0 && !self.newest_is_joined()
    }

    /// Resets the count of joins. No fiber remains that could join, so C has abandoned the counted
    /// frames by `longjmp`.
    pub fn forget_joins(&self) {
        self.joining.set(0);
    }
}
