//! The life of a thread: its record, and its end.

use std::cell::Cell;
use std::ptr;

use super::word::Word;
use super::{Record, ThreadState, pins};

/// A thread from its attachment to its end.
pub(crate) struct Life {
    /// The thread's record; null until the thread is attached.
    pub(super) record: Cell<*const Record>,
    /// The number of users that need the record while the thread is exiting; and the number of
    /// frames that do, some of which may be abandoned.
    users: Word,
    pub(super) pins: Word,
    /// Whether the thread is exiting, or its exit will go unnoticed. From then on, the last call
    /// that needs the record gives it back.
    pub(super) exiting: Cell<bool>,
    /// Whether the thread's key destructors run, or have run.
    has_exited: Cell<bool>,
    /// The function to call first at the thread's end, for the executor of its fibers.
    at_end: Cell<Option<fn()>>,
    /// Whether destructors of thread-locals have begun to run: see `fiber::thread_end`.
    pub ends: Cell<bool>,
    /// The number of `fiber::thread_end`'s hooks registered so far.
    pub end_hooks: Cell<usize>,
}

impl Life {
    pub const fn new() -> Self {
        Self {
            record: Cell::new(ptr::null()),
            users: Word::new(0),
            pins: Word::new(0),
            exiting: Cell::new(false),
            has_exited: Cell::new(false),
            at_end: Cell::new(None),
            ends: Cell::new(false),
            end_hooks: Cell::new(0),
        }
    }
}

impl ThreadState {
    /// The thread's record, if it is attached.
    #[inline]
    pub fn record(&self) -> Option<&Record> {
        // SAFETY: attaching set the pointer, and the record is given back only after the pointer is
        // null again. Both happen on this thread.
        unsafe { self.life.record.get().as_ref() }
    }

    /// Sets the function to call before the thread's thread-locals are destroyed.
    #[cfg(feature = "runtime")]
    pub fn set_at_end(&self, end: Option<fn()>) {
        self.life.at_end.set(end);
    }

    /// The function set by `set_at_end`.
    pub fn at_end(&self) -> Option<fn()> {
        self.life.at_end.get()
    }

    /// Whether any pooled stack of this thread is in use, or its record is pinned. `sp` is the
    /// thread's.
    pub fn is_in_use(&self, sp: usize) -> bool {
        self.is_record_pinned(sp) || self.stacks_in_use() != 0
    }

    /// Whether anything but calls needs the record. `sp` is the thread's.
    pub fn is_record_pinned(&self, sp: usize) -> bool {
        let by_frames = || self.record().is_some_and(|record| pins::is_any_live(self, record, sp));
        self.life.users.get() != 0 || self.life.pins.get() != 0 && by_frames()
    }

    /// Keeps the record until [`remove_user`](Self::remove_user).
    #[cfg(feature = "runtime")]
    pub fn add_user(&self) {
        self.life.users.add(1);
    }

    #[cfg(feature = "runtime")]
    pub fn remove_user(&self) {
        self.life.users.subtract(1);
    }

    /// Notes that the thread is exiting, or its exit will go unnoticed.
    pub(super) fn note_exit(&self) {
        self.life.exiting.set(true);
        self.be_careful();
    }

    /// Notes that the thread is exiting.
    pub(super) fn note_own_exit(&self) {
        self.life.has_exited.set(true);
        self.note_exit();
    }

    /// Whether the thread's key destructors run, or have run.
    pub fn has_exited(&self) -> bool {
        self.life.has_exited.get()
    }

    /// Whether the thread is exiting, or its exit will go unnoticed.
    pub fn is_exiting(&self) -> bool {
        self.life.exiting.get()
    }
}
