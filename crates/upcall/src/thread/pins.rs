//! Record pins: frames that need the thread's record. A frame pins it during a wait that blocks the
//! thread, or during the use of a value in the record.
//!
//! C may abandon such frames by `longjmp`; then they never unpin. A frame is known by its SP. Once
//! code runs further up the same stack, the pin is removed, and nothing in the frame is read. A
//! pin's data is in one of the thread's places for downcalls.

use std::panic::Location;

use stackbounds::stack_pointer;

use super::record::find_call_place;
use super::{OpenCall, Record, ThreadState};
use crate::function::Function;
use crate::stack::header_of_thread_at;

/// Keeps the thread's record from being given back, as long as the frame with this value exists.
pub(crate) struct RecordPin {
    thread: &'static ThreadState,
    place: &'static OpenCall,
    number: usize,
}

/// From so many pins on, abandoned ones are removed. Fewer stay.
const MANY: usize = 16;

impl RecordPin {
    /// Pins the record for the calling function.
    ///
    /// Requirements: the calling function is never inlined and has at most one pin. So an earlier
    /// pin with the same SP is a gone frame's.
    #[inline(always)]
    pub fn of(thread: &'static ThreadState) -> Self {
        let sp = stack_pointer();
        if thread.life.pins.get() >= MANY && thread.owns(sp) && !thread.calls.copies() {
            unpin_those(thread, |place| !place.is_of_wait() && place.rust_sp() == sp);
        }
        Self::new(thread, sp, None)
    }

    /// Pins the record for the calling function, which waits.
    #[inline(always)]
    pub fn of_wait(thread: &'static ThreadState, at: &'static Location<'static>, future: Function) -> Self {
        let sp = stack_pointer();
        unpin_abandoned(thread, sp);
        // A frame has only one wait, so an earlier one at this SP is gone.
        unpin_those(thread, |place| place.is_of_wait() && place.rust_sp() == sp);
        Self::new(thread, sp, Some((at, future)))
    }

    /// The pin's number, greater than those of all earlier frames and calls of the thread.
    pub fn number(&self) -> usize {
        self.number
    }

    fn new(
        thread: &'static ThreadState,
        sp: usize,
        wait: Option<(&'static Location<'static>, Function)>,
    ) -> Self {
        if thread.life.pins.get() >= MANY {
            unpin_abandoned(thread, sp);
        }
        let place = thread.calls.take(|| find_call_place(thread, sp));
        let number = thread.calls.number();
        place.pin(sp, number, wait);
        thread.life.pins.add(1);
        Self { thread, place, number }
    }
}

impl Drop for RecordPin {
    fn drop(&mut self) {
        // If the host copies stacks, this value may exist though its pin was removed.
        if self.place.pinned_by() == Some(self.number) {
            unpin(self.thread, self.place);
        } else {
            self.thread.calls.note_copies();
        }
    }
}

fn unpin(thread: &ThreadState, place: &OpenCall) {
    thread.life.pins.subtract(1);
    thread.calls.put(place);
}

fn unpin_those(thread: &ThreadState, those: impl Fn(&OpenCall) -> bool) {
    if thread.life.pins.get() != 0 {
        let places = thread.record().into_iter().flat_map(Record::places);
        let pinned = places.filter(|place| place.pinned_by().is_some() && those(place));
        pinned.for_each(|place| unpin(thread, place));
    }
}

/// Removes the pins of abandoned frames. The thread's code is at `sp`.
#[inline(always)]
pub(super) fn unpin_abandoned(thread: &ThreadState, sp: usize) {
    if thread.life.pins.get() != 0 {
        unpin_abandoned_frames(thread, sp);
    }
}

#[cold]
#[inline(never)]
fn unpin_abandoned_frames(thread: &ThreadState, sp: usize) {
    let Some(record) = thread.record() else { return };
    let pinned = record.places().filter(|place| place.pinned_by().is_some());
    pinned.filter(|place| thread.is_abandoned(place.rust_sp(), sp)).for_each(|place| unpin(thread, place));
}

/// Whether any frame with a pin is live. The thread's code is at `sp`.
pub(super) fn is_any_live(thread: &ThreadState, record: &Record, sp: usize) -> bool {
    let mut pinned = record.places().filter(|place| place.pinned_by().is_some());
    pinned.any(|place| !thread.is_abandoned(place.rust_sp(), sp))
}

/// The thread's innermost blocking wait. `sp` is the thread's, if the thread itself asks.
pub(crate) fn waits_for(
    thread: &ThreadState,
    record: &Record,
    sp: Option<usize>,
) -> Option<(&'static Location<'static>, Function)> {
    let live = |place: &&OpenCall| sp.is_none_or(|sp| !thread.is_abandoned(place.rust_sp(), sp));
    let waits = record.places().filter(live).filter_map(OpenCall::pinned_wait);
    waits.max_by_key(|(number, ..)| *number).map(|(_, at, future)| (at, future))
}

impl ThreadState {
    /// Whether the frame of this thread at `frame_sp` is certainly gone, because C abandoned it by
    /// `longjmp`. The thread's code is at `sp` now.
    pub fn is_abandoned(&self, frame_sp: usize, sp: usize) -> bool {
        if self.owns(frame_sp) {
            return frame_sp < sp && self.owns(sp) && !self.calls.copies();
        }
        match header_of_thread_at(frame_sp, self.id()) {
            Some(stack) if stack.contains(sp) => frame_sp < sp,
            Some(stack) => stack.seems_abandoned.get() || self.idle().any(|idle| std::ptr::eq(idle, stack)),
            None => {
                let stack = stackbounds::at(sp);
                stack.is_exact() && stack.contains(frame_sp) && frame_sp < sp
            }
        }
    }
}
