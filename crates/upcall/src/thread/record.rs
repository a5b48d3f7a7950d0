//! The records of threads: their state beyond [`ThreadState`], and the list of all.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::ptr;

use super::attach::is_on_signal_stack;
use super::locals::Locals;
use super::{Calls, OpenCall, ThreadState, abandoned};
use crate::stack::{StackHeader, service};
use crate::sync::{self, Held, Lock, Word, in_own_code};

/// A thread's record: its state beyond [`ThreadState`].
pub(crate) struct Record {
    pub thread: *const ThreadState,
    pub os_thread_id: usize,
    /// The thread's [serial](ThreadId::serial).
    pub serial: usize,
    /// The last message for C code outside fibers. See `crossing::last_message`.
    pub last_message: RefCell<Option<String>>,
    /// The values of fiber-local variables for code outside fibers.
    pub locals: RefCell<Locals>,
    /// Whether an upcall from an undescribed stack was reported.
    pub reported_foreign: Cell<bool>,
    /// Stacks whose upcalls seem abandoned, in this order: the first has seemed so for the longest
    /// time.
    pub quarantine: RefCell<VecDeque<&'static StackHeader>>,
    /// The places of the thread's downcalls, in blocks, each as large as all before it. Only the
    /// thread itself adds a block, under the lock of the list. So it may read them without the
    /// lock.
    pub(super) call_blocks: UnsafeCell<Vec<Box<[OpenCall]>>>,
    /// The next record in the list of idle ones.
    pub(super) next: Cell<*const Record>,
}

impl Record {
    /// The thread's open downcalls. For the thread itself, or under the lock of the list.
    pub fn open_calls(&self) -> impl Iterator<Item = &OpenCall> {
        self.places().filter(|place| place.is_open())
    }

    /// All places of the thread. For the thread itself, or under the lock of the list.
    pub fn places(&self) -> impl Iterator<Item = &OpenCall> {
        // SAFETY: only the thread itself adds blocks, under the lock (`add_places`). The caller is
        // this thread or holds the lock, so no block is added during this access.
        unsafe { &*self.call_blocks.get() }.iter().flat_map(|block| block.iter())
    }

    /// The number of free places, and of all places.
    fn count_places(&self) -> (usize, usize) {
        self.places().fold((0, 0), |(free, all), place| (free + usize::from(place.is_free()), all + 1))
    }

    /// Whether a place is free.
    pub fn has_places(&self) -> bool {
        self.places().any(OpenCall::is_free)
    }

    /// Adds a block of places. For the thread itself, with signals blocked.
    fn add_places(&self) {
        let _no_snapshot = lock();
        // SAFETY: this is the record's own thread, with signals blocked. All others read the blocks
        // under the lock, which is held here. So this reference is the only one.
        let blocks = unsafe { &mut *self.call_blocks.get() };
        blocks.push(Calls::block(FIRST_CALL_BLOCK << blocks.len().saturating_sub(1)));
    }

    /// Drops the content of the record, except one block of places. Frees only allocations made
    /// since the thread attached.
    pub(super) fn empty(&self) {
        drop((self.last_message.take(), self.locals.take(), self.quarantine.take()));
        // SAFETY: the record is the calling thread's, has no open calls, and is off the list. So
        // nobody else reads its blocks.
        unsafe { &mut *self.call_blocks.get() }.truncate(1);
    }

    /// Reserves places, so that the thread can make some downcalls without memory.
    pub fn reserve_places(&self) {
        service::run(|| {
            if !self.has_places() {
                self.add_places()
            }
        });
    }
}

/// The number of places in a thread's first block.
const FIRST_CALL_BLOCK: usize = 16;

pub(super) struct Records {
    /// The records of attached threads, except exiting ones.
    pub(super) attached: Vec<*const Record>,
    /// The linked list of idle records, without a thread, and its length.
    idle: *const Record,
    pub(super) idle_count: usize,
}

/// The number of idle records reserved for exiting threads.
pub(super) const RECORDS_FOR_EXITS: usize = 64;

// SAFETY: a record enters and leaves the list under the lock, and stays allocated after that. Other
// threads read only its atomic fields and those that never change while it is listed; they read its
// blocks under the lock.
unsafe impl Send for Records {}

static RECORDS: Lock<Records> = Lock::new(Records { attached: Vec::new(), idle: ptr::null(), idle_count: 0 });

impl Records {
    /// Takes an idle record. Nobody else uses it.
    pub(super) fn take_idle(&mut self) -> Option<*mut Record> {
        // SAFETY: null, or a record, and no record is ever freed.
        let record = unsafe { self.idle.as_ref() }?;
        self.idle = record.next.get();
        self.idle_count -= 1;
        Some(ptr::from_ref(record).cast_mut())
    }

    /// Puts a record without a thread into the list of idle ones.
    pub(super) fn add_idle(&mut self, record: &Record) {
        record.next.set(self.idle);
        self.idle = record;
        self.idle_count += 1;
    }
}

pub(super) fn lock() -> Held<Records> {
    sync::hold(&RECORDS)
}

/// The lock of the list and of the records' call blocks, for forks.
pub(crate) fn lock_word() -> &'static Word {
    RECORDS.word()
}

/// In the child of a fork, takes all records but `own`'s off the list.
///
/// The other threads do not exist in the child. Their records are leaked.
pub(crate) fn forget_other_threads(own: *const ThreadState) {
    lock().attached.retain(|&record| is_of(record, own));
}

/// Whether no other thread is attached, as far as records are listed.
pub(crate) fn is_alone(own: *const ThreadState) -> bool {
    lock().attached.iter().all(|&record| is_of(record, own))
}

fn is_of(record: *const Record, thread: *const ThreadState) -> bool {
    // SAFETY: records are never freed, and this field does not change while the record is listed.
    ptr::eq(unsafe { (*record).thread }, thread)
}

/// Calls `look` for the record of each attached thread, except exiting ones. None of these threads
/// can detach or end meanwhile.
pub(crate) fn for_each(mut look: impl FnMut(&Record)) {
    for &record in &lock().attached {
        // SAFETY: the record is listed and the lock is held, so it belongs to its thread throughout
        // the call.
        look(unsafe { &*record });
    }
}

/// Finds and takes a free place for a downcall of the calling thread. The thread is attached and at
/// `sp`.
#[cold]
#[inline(never)]
pub(crate) fn find_call_place(thread: &'static ThreadState, sp: usize) -> &'static OpenCall {
    let record = thread.record().expect("upcall: a thread is attached before it makes downcalls");
    if let Some(place) = thread.calls.take_next() {
        return place;
    }
    if in_own_code() {
        // An allocator makes this call while its thread uses the record. The place is leaked.
        let block: &'static [OpenCall] = service::run(|| Box::leak(Calls::block(1)));
        return thread.calls.take_of(block.iter()).expect("a new place is free");
    }
    let mut may_reclaim = true;
    loop {
        let (free, places) = service::run(|| record.count_places());
        // A search through many places for a few free ones costs too much: they count as none,
        // except where allocating is forbidden.
        let enough = free * 16 >= places || free != 0 && service::run(|| is_on_signal_stack(sp));
        if free == 0 || !enough {
            if places >= abandoned::MANY_CALLS
                && std::mem::take(&mut may_reclaim)
                && abandoned::reclaim(thread, sp).calls > places / 2
            {
                continue;
            }
            service::run(|| record.add_places());
        }
        if let Some(place) = service::run(|| thread.calls.take_of(record.places())) {
            // SAFETY: the place is in a block of this thread's record. Blocks with a place in use
            // are not freed.
            return unsafe { &*std::ptr::from_ref(place) };
        }
    }
}
