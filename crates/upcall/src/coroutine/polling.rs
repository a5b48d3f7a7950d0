//! The polls of a coroutine's waits, and other counted frames of its code.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr;
use std::task::Waker;

use super::FiberContext;
use super::frames::{Frame, Frames};
use crate::thread::{deferred_wake, waker};

/// A poll made by a wait of a coroutine, while it is in progress.
///
/// Its waker is a copy of the waker for the coroutine's own poll. The copy owns nothing, unless a
/// nested wait suspends the coroutine during the poll.
pub(crate) struct Polling {
    fiber: &'static FiberContext,
    waker: ManuallyDrop<Waker>,
    /// The number of the coroutine's suspensions before the poll.
    suspensions: usize,
    /// The poll's index among the fiber's polls.
    number: Cell<usize>,
}

impl Polling {
    /// Prepares a poll.
    ///
    /// # Safety
    /// [`begin`](Self::begin) is called before the coroutine is suspended, at the place where this
    /// value stays until it is dropped. Its argument is the SP of the function with this value.
    #[inline(always)]
    pub unsafe fn new(fiber: &'static FiberContext) -> Self {
        // SAFETY: the context is valid until the coroutine is suspended. Before that, `keep_wakers`
        // makes the copy own its waker.
        let waker = unsafe { ptr::read((*fiber.context.get()).waker()) };
        let suspensions = fiber.suspensions.get();
        Self { fiber, waker: ManuallyDrop::new(waker), suspensions, number: Cell::new(0) }
    }

    /// Begins the poll, and returns the waker for it.
    #[inline(always)]
    pub fn begin(&self, sp: usize) -> &Waker {
        let frame = Frame { sp, suspensions: self.suspensions };
        self.number.set(self.fiber.polls.push(frame, |other| self.fiber.is_abandoned(other, sp)));
        &self.waker
    }
}

impl Drop for Polling {
    #[inline(always)]
    fn drop(&mut self) {
        self.fiber.polls.pop_to(self.number.get());
        deferred_wake::flush();
        if self.fiber.suspensions.get() != self.suspensions {
            // SAFETY: dropped once. The first suspension since the poll began made the copy own its
            // waker, in `keep_wakers`.
            waker::catching(|| unsafe { ManuallyDrop::drop(&mut self.waker) });
        }
    }
}

/// A counted frame of a fiber. When dropped, removes the frame and all frames further in.
pub(crate) struct Counted<'a> {
    frames: &'a Frames,
    number: usize,
}

impl<'a> Counted<'a> {
    pub(super) fn by(fiber: &FiberContext, frames: &'a Frames, sp: usize) -> Self {
        let frame = Frame { sp, suspensions: 0 };
        Self { frames, number: frames.push(frame, |other| fiber.is_abandoned(other, sp)) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.frames.pop_to(self.number);
    }
}
