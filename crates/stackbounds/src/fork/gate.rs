//! The gate: one reentrant lock in place of all locks while a fork is in progress.

use core::cell::Cell;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use super::{IDENTITY_LEN, MOST_PARTICIPANTS, Whose, Word, each_lock, mark, participants};
use crate::sys::{self, Activity};

/// How long a thread waits before it first checks whether the forking thread sleeps, and between
/// checks.
const LOOK: Duration = Duration::from_micros(500);
/// How long a thread waits if the activity of the forking thread is unknown.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The lock of the gate. One thread is inside at a time, and may enter repeatedly.
static GATE: Word = Word::new();
/// The thread inside the gate; 0 for none.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// How many times the thread inside has entered the gate. Used by that thread alone.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// Whether a fork is in progress, so that locks have to be passed through the gate. Changed inside
/// the gate.
static OPEN: AtomicBool = AtomicBool::new(false);
/// Counts how many times the gate was opened.
static OPENED: AtomicU32 = AtomicU32::new(0);

/// In a child: the thread that forked, until the participants have forgotten the parent's other
/// threads.
static FORKED: AtomicPtr<Forker> = AtomicPtr::new(ptr::null_mut());
/// In a child: `true` until the participants have resumed the thread that forked.
static RESUMES: AtomicBool = AtomicBool::new(false);

/// A thread that forks.
///
/// All fields are atomics, and each thread uses its own: a child may be made while another thread
/// changes one.
struct Forker {
    /// The thread; 0 if the place is free, [`RESERVED`] while it is being filled.
    thread: AtomicUsize,
    /// The system's number for the thread.
    number: AtomicU32,
    /// Greater for a later fork.
    order: AtomicU32,
    /// The number of nested forks: an inner one comes from a handler of the outer one.
    depth: AtomicUsize,
    /// One bit for each nested fork, the innermost in bit 0: set in the child, after the system
    /// call.
    forked: AtomicU64,
    /// The locks that belong to this thread.
    own: [AtomicPtr<Word>; MOST_OWN],
    /// The handle of the thread in the threads library.
    handle: AtomicUsize,
    /// The identity of the thread for each participant.
    identities: [[AtomicPtr<()>; IDENTITY_LEN]; MOST_PARTICIPANTS],
}

const MOST_OWN: usize = 2 * MOST_PARTICIPANTS;
const RESERVED: usize = usize::MAX;
static FORKERS: [Forker; 8] = [const { Forker::nobody() }; 8];

thread_local! {
    /// The value of `OPENED` when the thread last passed: it waits at most once in one fork.
    static PASSED: Cell<u32> = const { Cell::new(0) };
}

/// Identifies the calling thread, in a child by the same number as in its parent.
fn here() -> usize {
    PASSED.with(|passed| ptr::from_ref(passed) as usize)
}

fn enter(me: usize) {
    if INSIDE.load(Relaxed) != me {
        while !GATE.take_unless_forking() {}
        INSIDE.store(me, Relaxed);
    }
    DEPTH.store(DEPTH.load(Relaxed) + 1, Relaxed);
}

pub(super) fn leave() {
    let depth = DEPTH.load(Relaxed) - 1;
    DEPTH.store(depth, Relaxed);
    if depth == 0 {
        INSIDE.store(0, Relaxed);
        GATE.give_back();
    }
}

#[inline]
pub(super) fn is_open() -> bool {
    OPEN.load(Relaxed)
}

/// A thread's attempts to pass a lock that is held for a fork.
pub(super) struct Visit {
    since: Option<Instant>,
}

impl Visit {
    pub const fn new() -> Self {
        Self { since: None }
    }

    /// Enters the gate, or sleeps for a short time; returns whether the thread is inside.
    ///
    /// If not, the caller looks at the lock again.
    pub fn passes(&mut self, word: &Word) -> bool {
        super::notice_child();
        let me = here();
        enter(me);
        if word.is_forking() {
            let waited = self.since.get_or_insert_with(Instant::now).elapsed();
            // The thread takes one lock inside another.
            if DEPTH.load(Relaxed) > 1 || others_allow(me, waited) {
                PASSED.set(OPENED.load(Relaxed));
                forget();
                return true;
            }
        }
        leave();
        word.sleep_while_forking(LOOK);
        false
    }
}

/// Whether every other forking thread has made its system call, or sleeps in a handler.
///
/// Called inside the gate.
fn others_allow(me: usize, waited: Duration) -> bool {
    let is_patient = waited >= LOOK || PASSED.get() == OPENED.load(Relaxed);
    let allows = |forker: &Forker| {
        if forker.forked.load(Relaxed) & 1 == 1 {
            return true;
        }
        match sys::activity_of(forker.number.load(Relaxed) as i32) {
            Activity::Asleep => true,
            Activity::Busy => false,
            Activity::Unknown => waited >= UNKNOWN,
            // A handler has ended the thread.
            Activity::Gone => {
                forker.go();
                true
            }
        }
    };
    let mut others = FORKERS.iter().filter(|forker| forker.thread() != 0 && forker.thread() != me);
    let allowed = others.all(|forker| is_patient && allows(forker) || forker.forked.load(Relaxed) & 1 == 1);
    close_if_done();
    allowed && is_open()
}

impl Forker {
    const fn nobody() -> Self {
        Self {
            thread: AtomicUsize::new(0),
            number: AtomicU32::new(0),
            order: AtomicU32::new(0),
            depth: AtomicUsize::new(0),
            forked: AtomicU64::new(0),
            own: [const { AtomicPtr::new(ptr::null_mut()) }; MOST_OWN],
            handle: AtomicUsize::new(0),
            identities: [const { [const { AtomicPtr::new(ptr::null_mut()) }; IDENTITY_LEN] };
                MOST_PARTICIPANTS],
        }
    }

    /// Stores the identity of the calling thread.
    fn identify(&self) {
        self.handle.store(sys::thread_handle(), Relaxed);
        for (participant, places) in participants().zip(&self.identities) {
            for (identity, place) in (participant.identity)().into_iter().zip(places) {
                place.store(identity.cast_mut(), Relaxed);
            }
        }
    }

    /// The thread; 0 if there is none yet.
    fn thread(&self) -> usize {
        match self.thread.load(Acquire) {
            RESERVED => 0,
            thread => thread,
        }
    }

    fn of(me: usize) -> Option<&'static Forker> {
        FORKERS.iter().find(|forker| forker.thread() == me)
    }

    /// A free place for another thread; waits until there is one.
    fn reserve() -> &'static Forker {
        loop {
            let is_free =
                |forker: &&Forker| forker.thread.compare_exchange(0, RESERVED, Acquire, Relaxed).is_ok();
            if let Some(forker) = FORKERS.iter().find(is_free) {
                return forker;
            }
            thread::sleep(LOOK);
        }
    }

    /// Registers a fork of the calling thread. Called inside the gate.
    fn come(&self, me: usize) {
        static ORDER: AtomicU32 = AtomicU32::new(0);
        self.number.store(sys::thread_number() as u32, Relaxed);
        self.order.store(ORDER.fetch_add(1, Relaxed), Relaxed);
        self.depth.store(1, Relaxed);
        self.forked.store(0, Relaxed);
        self.thread.store(me, Release);
    }

    /// Frees the place after the thread's last fork. Called inside the gate.
    fn go(&self) {
        self.each_own(Word::end_fork);
        self.own.iter().for_each(|word| word.store(ptr::null_mut(), Relaxed));
        self.thread.store(0, Release);
    }

    fn keep_own(&self, word: &'static Word) {
        let is_free = |place: &&AtomicPtr<Word>| place.load(Relaxed).is_null();
        let place = self.own.iter().find(is_free).expect("stackbounds: a thread has two locks of its own");
        place.store(ptr::from_ref(word).cast_mut(), Relaxed);
    }

    fn each_own(&self, f: impl Fn(&Word)) {
        // SAFETY: each entry is null, or a `&'static` stored by `keep_own`.
        self.own.iter().filter_map(|word| unsafe { word.load(Relaxed).as_ref() }).for_each(f);
    }

    /// Releases locks that were taken for a fork which has not begun.
    fn give_back_own(&self) {
        self.each_own(Word::give_back);
        self.own.iter().for_each(|word| word.store(ptr::null_mut(), Relaxed));
    }
}

/// Takes all locks and hands them to the gate, unless the fork of another thread has done so.
pub(super) fn begin_fork() {
    let me = here();
    if let Some(forker) = Forker::of(me) {
        // This fork comes from a handler of an outer one.
        forker.identify();
        enter(me);
        forker.number.store(sys::thread_number() as u32, Relaxed);
        forker.depth.store(forker.depth.load(Relaxed) + 1, Relaxed);
        forker.forked.store(forker.forked.load(Relaxed) << 1, Relaxed);
        return leave();
    }
    let forker = Forker::reserve();
    // Before any lock is held: an allocator's hook may need one.
    forker.identify();
    while !(if is_open() { joins(me, forker) } else { opens(me, forker) }) {
        thread::yield_now();
    }
}

/// Begins a fork with no other in progress; `false` if another thread was first.
fn opens(me: usize, forker: &Forker) -> bool {
    let count = participants().count();
    let (mut taken, mut refused) = (0, false);
    each_lock(count, &mut |word, whose| {
        refused |= !refused && !word.take_unless_forking();
        if !refused {
            taken += 1;
            if whose == Whose::Own {
                forker.keep_own(word);
            }
        }
    });
    if refused {
        let mut remaining = taken;
        each_lock(count, &mut |word, whose| {
            if remaining != 0 && whose == Whose::All {
                word.give_back();
            }
            remaining -= usize::from(remaining != 0);
        });
        forker.give_back_own();
        return false;
    }
    enter(me);
    forker.come(me);
    OPENED.store(OPENED.load(Relaxed).wrapping_add(1), Relaxed);
    OPEN.store(true, Relaxed);
    each_lock(count, &mut |word, _| word.begin_fork());
    leave();
    true
}

/// Begins a fork while others are in progress.
///
/// Returns `false` if they have ended, or if one of the thread's own locks is in use.
fn joins(me: usize, forker: &Forker) -> bool {
    enter(me);
    let mut could = is_open();
    each_lock(MOST_PARTICIPANTS, &mut |word, whose| {
        if could && whose == Whose::Own && !word.is_forking() {
            could = word.try_take();
            if could {
                forker.keep_own(word);
            }
        }
    });
    if could {
        forker.each_own(Word::begin_fork);
        forker.come(me);
    } else {
        forker.give_back_own();
    }
    leave();
    could
}

/// Ends the calling thread's fork, made or failed: in the parent, or in the child.
pub(super) fn end_fork() {
    let me = here();
    enter(me);
    forget();
    if let Some(forker) = Forker::of(me) {
        let depth = forker.depth.load(Relaxed) - 1;
        forker.depth.store(depth, Relaxed);
        forker.forked.store(forker.forked.load(Relaxed) >> 1, Relaxed);
        if depth == 0 {
            forker.go();
        }
    }
    close_if_done();
    leave();
}

/// Closes the gate after the last fork. Called inside the gate.
fn close_if_done() {
    if is_open() && FORKERS.iter().all(|forker| forker.thread() == 0) {
        OPEN.store(false, Relaxed);
        each_lock(MOST_PARTICIPANTS, &mut |word, whose| {
            if whose == Whose::All {
                word.end_fork();
            }
        });
    }
}

/// In a child, on the thread that forked: whether a thread has noticed the child.
pub(super) fn has_noticed() -> bool {
    Forker::of(here()).is_none_or(|forker| forker.forked.load(Relaxed) & 1 == 1)
}

/// Notes once, while the gate is open, that this process is a child.
///
/// Threads made by the child may call this too.
#[cold]
pub(super) fn in_child() {
    if !mark::claim() {
        return;
    }
    reset();
    let forker = who_forked();
    let is_untold = forker.is_none();
    for other in FORKERS.iter().filter(|other| forker.is_none_or(|forker| !ptr::eq(*other, forker))) {
        other.thread.store(0, Relaxed);
        other.own.iter().for_each(|word| word.store(ptr::null_mut(), Relaxed));
    }
    // This child is untold: it was made during the fork of another thread.
    let forker = forker.unwrap_or_else(|| {
        FORKERS[0].identify();
        FORKERS[0].come(here());
        &FORKERS[0]
    });
    forker.number.store(sys::process_number() as u32, Relaxed);
    forker.forked.store(forker.forked.load(Relaxed) | 1, Relaxed);
    FORKED.store(ptr::from_ref(forker).cast_mut(), Relaxed);
    participants().for_each(|participant| (participant.at_once)());
    RESUMES.store(true, Relaxed);
    mark::known();
    if is_untold {
        end_fork();
    }
}

/// In a child: empties the gate. No thread is inside, since each notices the child first.
pub(super) fn reset() {
    GATE.reset();
    INSIDE.store(0, Relaxed);
    DEPTH.store(0, Relaxed);
}

/// In a child, on any thread: the thread that forked. `None` if the child is untold.
fn who_forked() -> Option<&'static Forker> {
    if let Some(forker) = Forker::of(here()) {
        return Some(forker);
    }
    if sys::thread_number() == sys::process_number() {
        return None;
    }
    let forkers = || FORKERS.iter().filter(|forker| forker.thread() != 0);
    let first = sys::first_thread();
    let known = forkers().find(|forker| Some(forker.handle.load(Relaxed)) == first);
    known.or_else(|| forkers().max_by_key(|forker| forker.order.load(Relaxed)))
}

/// In a child: makes the participants forget the parent's other threads, once. Called inside the
/// gate.
fn forget() {
    if FORKED.load(Relaxed).is_null() {
        return;
    }
    // SAFETY: null, or a pointer to one of `FORKERS`, which are static.
    if let Some(forker) = unsafe { FORKED.swap(ptr::null_mut(), Relaxed).as_ref() } {
        for (participant, identity) in participants().zip(&forker.identities) {
            (participant.forget)(identity.each_ref().map(|part| part.load(Relaxed).cast_const()));
        }
    }
}

#[cold]
pub(super) fn settle_child() {
    super::notice_child();
    if !FORKED.load(Relaxed).is_null() {
        enter(here());
        forget();
        leave();
    }
}

/// In a child, on the thread that forked: calls the participants' `resume`, once.
pub(super) fn resume() {
    if RESUMES.swap(false, Relaxed) {
        participants().for_each(|participant| (participant.resume)());
    }
}

/// Calls [`resume`] if the calling thread is the one that forked, even before its child handler
/// runs.
pub(super) fn resume_if_forked_here() {
    if !RESUMES.load(Relaxed) {
        return;
    }
    if !is_open() || Forker::of(here()).is_some() {
        settle_child();
        resume();
    }
}
