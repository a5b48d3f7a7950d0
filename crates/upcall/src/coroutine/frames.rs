//! Counted frames, identified by their SP.
//!
//! Frames abandoned by C's `longjmp` are found out by SP alone. Nothing inside a frame is read.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

/// One counted frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// SP of the frame's function. Two frames counted in one call of a function have the same.
    pub sp: usize,
    /// The number of the fiber's suspensions before the frame, for users that need it.
    pub suspensions: usize,
}

/// A list of counted frames, the innermost last.
pub(crate) struct Frames {
    count: Cell<usize>,
    first: [Cell<Frame>; FIRST],
    rest: RefCell<Vec<Frame>>,
}

/// The number of frames stored without allocating.
const FIRST: usize = 2;

impl Frames {
    pub const fn new() -> Self {
        const NONE: Frame = Frame { sp: 0, suspensions: 0 };
        Self {
            count: Cell::new(0),
            first: [const { Cell::new(NONE) }; FIRST],
            rest: RefCell::new(Vec::new()),
        }
    }

    /// The number of frames. Some may be abandoned.
    #[inline(always)]
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// The frame at index `number`.
    pub fn get(&self, number: usize) -> Frame {
        match number.checked_sub(FIRST) {
            None => self.first[number].get(),
            Some(number) => self.rest.borrow()[number],
        }
    }

    /// Forgets abandoned frames, as told by `is_abandoned(sp)`, then adds a frame. Returns its
    /// index.
    #[inline(always)]
    pub fn push(&self, frame: Frame, is_abandoned: impl Fn(usize) -> bool) -> usize {
        let count = if self.count.get() == 0 { 0 } else { self.live(is_abandoned) };
        loop {
            match self.first.get(count) {
                Some(place) => place.set(frame),
                None => self.push_more(count, frame),
            }
            compiler_fence(SeqCst);
            self.count.set(count + 1);
            compiler_fence(SeqCst);
            // A signal handler that came before this frame was counted may have put its own frames
            // here.
            if self.first.get(count).is_none_or(|place| place.get().sp == frame.sp) {
                return count;
            }
        }
    }

    /// Puts a frame at index `count`, beyond the first ones.
    #[cold]
    #[inline(never)]
    fn push_more(&self, count: usize, frame: Frame) {
        let mut rest = self.rest.borrow_mut();
        rest.truncate(count - FIRST);
        rest.push(frame);
    }

    /// Removes the frame at index `number`, with the abandoned ones further in.
    #[inline(always)]
    pub fn pop_to(&self, number: usize) {
        self.count.set(number);
    }

    /// Forgets abandoned frames. Returns the number of live ones.
    #[inline(never)]
    pub fn live(&self, is_abandoned: impl Fn(usize) -> bool) -> usize {
        let mut count = self.count.get();
        while count != 0 && is_abandoned(self.get(count - 1).sp) {
            count -= 1;
        }
        self.count.set(count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Frames};

    #[test]
    fn frames_that_were_left_are_forgotten_by_the_next() {
        let frames = Frames::new();
        let push = |sp| frames.push(Frame { sp, suspensions: 0 }, |other| other < sp);
        for (number, sp) in [90, 80, 70, 60].into_iter().enumerate() {
            assert_eq!(push(sp), number);
        }
        assert_eq!(push(75), 2);
        assert_eq!((frames.count(), frames.get(2).sp, frames.live(|_| false)), (3, 75, 3));
        frames.pop_to(2);
        assert_eq!(frames.live(|other| other < 85), 1);
    }
}
