//! Forks: a child has one thread and a copy of all memory, and no lock-protected data may be
//! half-changed in it.
//!
//! Each participating [`Lock`] is held from our prepare handler to our parent or child handler, so
//! no other thread is in the middle of a change at the moment of the copy. Taking no lock, and
//! checking afterwards for free ones, is not enough: the kernel copies page after page while other
//! threads write.
//!
//! Older handlers of other libraries run within this time, before the fork and after it:
//!
//! ```text
//! fork() ── prepare: newest … [ours … oldest] ── the system call ── [oldest … ours] … newest
//!                             [  locks are held, and passed through the gate  ]
//! ```
//!
//! These handlers may use the data behind our locks, and wait for other threads that do. So a held
//! lock is handed to the `gate`: one reentrant lock in place of all.
//!
//! - The forking thread enters the gate at once.
//! - Another thread enters it when the forking thread sleeps in the kernel. The forking thread does
//!   so only in a handler, never in the system call.
//! - After the system call, in the child, every thread may enter.
//!
//! One race remains. The forking thread sleeps in a handler, and a second thread enters the gate. A
//! third thread wakes the first. The first makes the system call before the second leaves. A thread
//! enters after half a millisecond of sleep and stays for less than one microsecond. If a handler
//! waits for a thread, that thread leaves before the handler ends.
//!
//! A child detects the fork at its first use of anything here, before its own handler is called. It
//! uses a page that the kernel clears in children, or the process number.
//!
//! An *untold* child was made without fork handlers, by `_Fork` or `clone`. The same page or number
//! detects it.

mod gate;
mod lock;

use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32};

pub use lock::{Condition, Guard, Lock, Word};

use crate::sys;

/// A library with locks to be held during forks, and data to be repaired in children.
///
/// No function but `resume` may panic, wait, or call foreign code.
#[derive(Debug)]
pub struct Participant {
    /// Visits all locks of the participant, in the order of their nesting, outermost first.
    pub each_lock: fn(&mut dyn FnMut(&'static Word, Whose)),
    /// The participant's own identification of the calling thread.
    pub identity: fn() -> Identity,
    /// In the child, before any use by any thread: takes note of the fork.
    ///
    /// Needs next to no stack, and takes no locks.
    pub at_once: fn(),
    /// In the child, on any thread, with all locks held: forgets the parent's other threads.
    ///
    /// The argument identifies the thread that forked: the only one copied.
    pub forget: fn(Identity),
    /// In the child, on the forking thread, without locks: makes that thread continue.
    pub resume: fn(),
    /// Whether only the calling thread uses the participant. The locks are free.
    ///
    /// If so, a fork without handlers copied everything whole.
    pub is_alone: fn() -> bool,
}

/// Pointers that identify a thread: addresses of its data.
pub type Identity = [*const (); IDENTITY_LEN];

const IDENTITY_LEN: usize = 3;

/// The forks during which a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Held during the forks of all threads.
    All,
    /// Held only during the forks of the calling thread, the lock's owner.
    Own,
}

const MOST_PARTICIPANTS: usize = 8;
static PARTICIPANTS: [AtomicPtr<Participant>; MOST_PARTICIPANTS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MOST_PARTICIPANTS];

/// The registry's lock, taken inside all others. Null until the fork handlers are registered.
static INNERMOST: AtomicPtr<Word> = AtomicPtr::new(ptr::null_mut());

fn participants() -> impl Iterator<Item = &'static Participant> {
    // SAFETY: each entry is null, or a `&'static` stored by `join`.
    PARTICIPANTS.iter().map_while(|participant| unsafe { participant.load(Acquire).as_ref() })
}

/// Visits the locks of the first `count` participants, and of the registry.
fn each_lock(count: usize, visit: &mut dyn FnMut(&'static Word, Whose)) {
    participants().take(count).for_each(|participant| (participant.each_lock)(visit));
    // SAFETY: null, or a `&'static` stored by `watch`.
    if let Some(word) = unsafe { INNERMOST.load(Acquire).as_ref() } {
        visit(word, Whose::All);
    }
}

/// Adds a participant; `innermost` is the registry's lock.
pub(crate) fn join(participant: &'static Participant, innermost: &'static Word) {
    let pointer = ptr::from_ref(participant).cast_mut();
    let joins =
        |place: &AtomicPtr<_>| place.compare_exchange(ptr::null_mut(), pointer, AcqRel, Relaxed).is_ok();
    assert!(PARTICIPANTS.iter().any(joins), "stackbounds: too many libraries take part in forks");
    watch(innermost);
}

/// Registers the fork handlers, at the first call; `innermost` is the registry's lock.
///
/// To be called before there is anything to be kept whole.
pub(crate) fn watch(innermost: &'static Word) {
    let word = ptr::from_ref(innermost).cast_mut();
    if INNERMOST.load(Relaxed).is_null() && INNERMOST.swap(word, AcqRel).is_null() {
        mark::make();
        sys::watch(before, in_parent, in_child);
    }
}

extern "C" fn before() {
    // This process may be an untold child itself.
    let _ = is_untold();
    gate::begin_fork();
}

extern "C" fn in_parent() {
    gate::end_fork();
}

extern "C" fn in_child() {
    notice_child();
    if !gate::has_noticed() {
        mark::is_not_wiped();
        gate::in_child();
    }
    gate::end_fork();
    gate::resume();
}

/// Checks for a child of a fork in progress: if this process is one, takes note of it.
///
/// To be called before any use of data that changes in children.
#[inline]
pub fn notice_child() {
    if gate::is_open() && mark::is_child() {
        gate::in_child();
    }
}

/// Like [`notice_child`], and makes the participants forget the parent's other threads.
#[inline]
pub fn settle_child() {
    if gate::is_open() {
        gate::settle_child();
    }
}

/// Whether this process is an untold child beyond repair. To be called before a sleep.
///
/// If `true`, the calling thread is about to wait for a thread that exists only in the parent.
///
/// Returns `false` after repairing the state, if no other thread of the parent used the
/// participants or held a lock. Also returns `false` if a fork is in progress, after taking note of
/// the child.
#[cold]
pub fn is_untold() -> bool {
    if !mark::is_child() {
        return false;
    }
    if gate::is_open() {
        gate::in_child();
        return false;
    }
    !is_made_good()
}

/// In a child, on the forking thread: calls [`resume`](Participant::resume), if not called yet.
///
/// To be called before a wait sleeps, with nothing half-changed.
#[cold]
pub fn resume_in_child() {
    gate::resume_if_forked_here();
}

/// Repairs the state of an untold child, if no other thread of the parent mattered.
///
/// Does the same as the fork handlers do in other children. Returns whether the state is whole.
fn is_made_good() -> bool {
    let mut are_free = true;
    each_lock(MOST_PARTICIPANTS, &mut |word, _| are_free &= word.is_free());
    if !are_free || !participants().all(|participant| (participant.is_alone)()) {
        return false;
    }
    if mark::claim() {
        gate::reset();
        participants().for_each(|participant| (participant.at_once)());
        mark::known();
        participants().for_each(|participant| (participant.forget)((participant.identity)()));
        participants().for_each(|participant| (participant.resume)());
    }
    true
}

/// Aborts: the calling thread waits for a thread that exists only in the parent.
#[cold]
fn untold_child_is_stuck() -> ! {
    eprintln!(
        "stackbounds: this process was made by _Fork, clone or a system call, which call no fork handlers, and waits for a \
         thread of the process that it was copied from. Use fork(), or call nothing but exec and _exit in such a process"
    );
    std::process::abort();
}

/// The word by which a process finds out that it is a child.
mod mark {
    use super::*;

    /// A child, not noticed yet by any thread.
    const CHILD: u32 = 0;
    /// A thread is noticing.
    const NOTICING: u32 = 1;
    const KNOWN: u32 = 2;

    /// A word that the kernel clears in children.
    static WIPED: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
    /// Used if the kernel clears no page: cleared by the thread that detects a new process number.
    static PLAIN: AtomicU32 = AtomicU32::new(KNOWN);
    static PROCESS: AtomicI32 = AtomicI32::new(0);

    pub fn make() {
        if let Some(word) = sys::make_wiped_page() {
            word.store(KNOWN, Relaxed);
            WIPED.store(ptr::from_ref(word).cast_mut(), Release);
        } else {
            PROCESS.store(sys::process_number(), Relaxed);
        }
    }

    fn word() -> &'static AtomicU32 {
        // SAFETY: null, or the word on the page, which is never unmapped.
        if let Some(word) = unsafe { WIPED.load(Acquire).as_ref() } {
            return word;
        }
        let (was, is) = (PROCESS.load(Relaxed), sys::process_number());
        if was != 0 && was != is && PROCESS.compare_exchange(was, is, Relaxed, Relaxed).is_ok() {
            PLAIN.store(CHILD, Relaxed);
        }
        &PLAIN
    }

    /// In a child, after the page was copied instead of cleared: uses the process number from now
    /// on.
    ///
    /// An emulator may claim to support such pages without clearing them.
    pub fn is_not_wiped() {
        PROCESS.store(sys::process_number(), Relaxed);
        PLAIN.store(CHILD, Relaxed);
        WIPED.store(ptr::null_mut(), Release);
    }

    pub fn is_child() -> bool {
        word().load(Acquire) != KNOWN
    }

    /// Whether the calling thread is the one to notice the child. If another thread is, waits until
    /// it has done so.
    pub fn claim() -> bool {
        let word = word();
        let claimed = word.compare_exchange(CHILD, NOTICING, Acquire, Acquire).is_ok();
        while !claimed && word.load(Acquire) == NOTICING {
            std::thread::yield_now();
        }
        claimed
    }

    pub fn known() {
        word().store(KNOWN, Release);
    }
}
