//! Waits that suspend coroutines of the host, and the list of those that can go on.
//!
//! A [`SuspendedWait`] is taken for one wait at a time, and never freed. So its waker is a plain
//! reference: cloning and dropping it is free, and calling it takes neither a lock nor memory. A
//! late call reaches the next wait with the same place, which then polls its future in vain. Hence
//! rule: **to be woken means to poll again.**
//!
//! A wait is added to its thread's list when it can go on (`signal`). The thread takes it from
//! there, and gives its coroutine to the host. A wait that has ended meanwhile is passed over.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use super::clock::{self, elapsed, now};
use super::signal::Signal;
use super::{Coroutine, Host};
use crate::config::settings;
use crate::function::Function;
use crate::messages::warn;
use crate::published::CurrentWait;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize};
use crate::sync::{Event, Held, Linked, Lock, Remote, Word, hold, sequential};

/// A place for one wait at a time on the host's coroutines of one thread. It is never freed.
pub(crate) struct SuspendedWait {
    signal: Signal,
    thread: &'static CoroutineWaits,
    coroutine: AtomicPtr<c_void>,
    /// Shown by snapshots.
    wait: CurrentWait,
    /// When the coroutine was suspended, in milliseconds since [`start`](super::clock::start); shown
    /// by snapshots.
    since: AtomicU32,
    /// The host that suspends the coroutine; `None` if the place is free. Only for the own thread.
    host: Cell<Option<&'static dyn Host>>,
}

// SAFETY: other threads use the fields that are atomic. Only the own thread uses `host`, a `Cell`.
unsafe impl Sync for SuspendedWait {}

/// An item of the list of ready waits.
struct Ready(&'static SuspendedWait);

impl Linked for Ready {
    fn into_raw(self) -> NonNull<()> {
        NonNull::from(self.0).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller guarantees that `into_raw` gave the pointer, from a `'static`
        // reference.
        Self(unsafe { raw.cast().as_ref() })
    }

    unsafe fn link_of<'a>(raw: NonNull<()>) -> &'a AtomicPtr<()> {
        // SAFETY: as above.
        unsafe { &raw.cast::<SuspendedWait>().as_ref().signal.link }
    }
}

/// The waits of one thread that suspend, or have suspended, coroutines of the host.
///
/// It outlives its thread, like the waits, and another thread takes it over.
pub(crate) struct CoroutineWaits {
    /// The [serial](crate::stack::ThreadId::serial) of the thread; 0 between two threads.
    serial: AtomicUsize,
    ready: Remote<Ready>,
    event: OnceLock<&'static Event>,
    /// When a wait became ready, in milliseconds since [`start`](super::clock::start): the first one
    /// since the host last asked for ready coroutines. 0 if there is none.
    ready_since: AtomicU32,
    own: Own,
}

/// The part for the own thread alone.
struct Own {
    /// Ready waits taken from the list of all threads, in the order of their wakes.
    taken: RefCell<VecDeque<Ready>>,
    /// Waits in nobody's use.
    free: RefCell<Vec<&'static SuspendedWait>>,
    /// The number of all waits, in use or free.
    made: Cell<usize>,
}

// SAFETY: the lists that other threads change are `Remote` and `Event`, which are for this. `own`
// is only used by the thread that took the `CoroutineWaits`, or between two threads by the holder
// of the lock of `ALL`.
unsafe impl Sync for CoroutineWaits {}

/// All [`CoroutineWaits`], and all their waits.
struct All {
    unused: Vec<&'static CoroutineWaits>,
    blocks: Vec<&'static [SuspendedWait]>,
    /// The descriptors of threads that ended with suspended coroutines. Late wakes of these may
    /// still signal them, so they are not closed but reused.
    events: Vec<&'static Event>,
}

static ALL: Lock<All> = Lock::new(All { unused: Vec::new(), blocks: Vec::new(), events: Vec::new() });

fn all() -> Held<All> {
    hold(&ALL)
}

/// The lock, for forks.
pub(crate) fn lock_word() -> &'static Word {
    ALL.word()
}

/// The number of waits in the first block; each further block has as many as all before it.
const FIRST_BLOCK: usize = 16;

impl CoroutineWaits {
    /// Takes one for the calling thread, whose serial number is given.
    pub fn take(serial: usize) -> &'static Self {
        let mut all = all();
        clock::start();
        let unused = all.unused.pop();
        drop(all);
        let waits = unused.unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                serial: AtomicUsize::new(0),
                ready: Remote::new(),
                event: OnceLock::new(),
                ready_since: AtomicU32::new(0),
                own: Own { taken: RefCell::default(), free: RefCell::default(), made: Cell::new(0) },
            }))
        });
        waits.serial.store(serial, Relaxed);
        waits
    }

    /// Gives it back at the thread's end. If coroutines are suspended, nobody will resume them, and
    /// their waits are leaked with them.
    pub fn give_back(&'static self) {
        self.serial.store(0, Relaxed);
        let mut all = all();
        if let Some(event) = self.event.get() {
            event.clear();
        }
        if self.blocks(&all).flatten().all(|wait| wait.host.get().is_none()) {
            all.unused.push(self);
        } else {
            all.events.extend(self.event.get());
        }
    }

    /// The blocks of its waits.
    fn blocks(&'static self, all: &All) -> impl Iterator<Item = &'static [SuspendedWait]> {
        all.blocks.iter().copied().filter(move |block| ptr::eq(block[0].thread, self))
    }

    /// Takes a place for a wait. `None` in a signal handler that has interrupted this function.
    pub fn begin(&'static self, host: &'static dyn Host) -> Option<Taken> {
        let mut free = self.own.free.try_borrow_mut().ok()?;
        let wait = match free.pop() {
            Some(wait) => wait,
            None => {
                let len = self.own.made.get().max(FIRST_BLOCK);
                self.own.made.set(self.own.made.get() + len);
                let block: Box<[_]> = (0..len).map(|_| SuspendedWait::new(self)).collect();
                let block: &'static [_] = Box::leak(block);
                all().blocks.push(block);
                free.extend(&block[1..]);
                &block[0]
            }
        };
        wait.host.set(Some(host));
        Some(Taken(wait))
    }

    /// Takes the next wait whose coroutine can go on.
    pub fn next_ready(&self) -> Option<&'static SuspendedWait> {
        self.ready_since.store(0, Relaxed);
        loop {
            let ready = {
                let mut taken = self.own.taken.try_borrow_mut().ok()?;
                if taken.is_empty() {
                    self.ready.fetch(&mut *taken);
                }
                // Unlisted within the borrow: `look_again` finds each listed wait in a list.
                taken.pop_front().map(|Ready(wait)| wait.signal.unlist().then_some(wait))
            };
            match ready {
                Some(Some(wait)) => return Some(wait),
                Some(None) => {}
                None if self.is_empty_for_sure() => return None,
                None => {}
            }
        }
    }

    /// Makes the descriptor unreadable if the list is empty. Returns whether it is.
    fn is_empty_for_sure(&self) -> bool {
        if let Some(event) = self.event.get() {
            event.clear();
            self.signal_if_some(event);
        }
        !self.has_some()
    }

    /// Whether there is a ready wait. A signal handler may have taken waits from the list of all
    /// threads, and left some.
    fn has_some(&self) -> bool {
        self.own.taken.try_borrow().is_ok_and(|taken| !taken.is_empty()) || self.ready.has_some()
    }

    /// Makes the descriptor readable if there is a ready wait.
    fn signal_if_some(&self, event: &Event) {
        if self.has_some() {
            event.signal();
        }
    }

    /// The descriptor that is readable while a coroutine can go on. It is made at the first call.
    ///
    /// # Errors
    /// If the system gives no descriptor.
    pub fn event(&self) -> io::Result<&'static Event> {
        if self.event.get().is_none() {
            // Only the own thread makes one, so none is lost here.
            let unused = all().events.pop();
            let event = match unused {
                Some(event) => event,
                None => Box::leak(Box::new(Event::new()?)),
            };
            let _ = self.event.set(event);
            sequential();
        }
        let event = self.event.get().expect("upcall: the descriptor was just made");
        self.signal_if_some(event);
        Ok(event)
    }

    /// In the child of a fork: lists all suspended waits, except those that the host was told of.
    ///
    /// If a thread of the parent was about to add a wait to the list, the wait is in none here.
    /// Threads of the child may wake waits meanwhile. So [`forget_others`] has noted which waits to
    /// look for.
    pub fn look_again(&'static self) {
        let Ok(mut taken) = self.own.taken.try_borrow_mut() else { return };
        self.ready.fetch(&mut *taken);
        taken.iter().for_each(|Ready(wait)| wait.signal.note_found());
        drop(taken);
        let waits: Vec<_> = self.blocks(&all()).collect();
        waits.into_iter().flatten().filter(|wait| wait.signal.end_search()).for_each(|wait| self.add(wait));
        if let Some(event) = self.event.get() {
            self.signal_if_some(event);
        }
    }

    fn add(&self, wait: &'static SuspendedWait) {
        if self.ready_since.load(Relaxed) == 0 {
            self.ready_since.store(now().max(1), Relaxed);
        }
        self.ready.push(Ready(wait));
        if let Some(event) = self.event.get() {
            event.signal();
        }
    }
}

/// The time after which a ready coroutine is reported, unless the settings say otherwise.
const WARNING: Duration = Duration::from_secs(60);

impl CoroutineWaits {
    /// Reports, once a process, that ready coroutines are not resumed for long.
    #[inline]
    fn warn_if_neglected(&self, now: u32) {
        let since = self.ready_since.load(Relaxed);
        if since != 0 {
            self.warn(elapsed(since, now));
        }
    }

    #[cold]
    #[inline(never)]
    fn warn(&self, neglected: Duration) {
        static WARNED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
        let limit = settings().wait_warning.unwrap_or(WARNING);
        if limit.is_zero() || neglected < limit || WARNED.swap(true, Relaxed) {
            return;
        }
        let serial = self.serial.load(Relaxed);
        let ready = suspended().into_iter().find(|(thread, seen)| *thread == serial && seen.is_ready);
        let Some((_, Suspended { coroutine, wait: (at, future), .. })) = ready else {
            // The host resumed them without asking.
            self.ready_since.store(0, Relaxed);
            WARNED.store(false, Relaxed);
            return;
        };
        warn(format_args!(
            "{coroutine:?} of the host can go on, and has not been resumed for {neglected:?}: its wait at {at}, for {future}, \
             suspended it. The host's loop takes ready coroutines from coroutines_next_ready when coroutines_fd is readable. \
             Other such coroutines are not reported; upcall::snapshot lists them"
        ));
    }
}

impl SuspendedWait {
    fn new(thread: &'static CoroutineWaits) -> Self {
        Self {
            signal: Signal::new(),
            thread,
            coroutine: AtomicPtr::new(ptr::null_mut()),
            wait: CurrentWait::none(),
            since: AtomicU32::new(0),
            host: Cell::new(None),
        }
    }

    pub fn coroutine(&self) -> Option<Coroutine> {
        NonNull::new(self.coroutine.load(Relaxed)).map(Coroutine::new)
    }

    /// The host that suspends the coroutine. For the own thread only.
    pub fn host(&self) -> Option<&'static dyn Host> {
        self.host.get()
    }

    /// Lists the wait again: its coroutine was not resumed after all.
    pub fn put_back(&'static self) {
        if self.signal.put_back() {
            self.thread.add(self);
        }
    }

    fn wake(&'static self) {
        if self.signal.wake() {
            self.thread.add(self);
        }
    }
}

/// A wait in progress. The drop ends it.
pub(crate) struct Taken(&'static SuspendedWait);

impl Taken {
    /// The waker of this wait, for polls of its future.
    pub fn waker(&self) -> ManuallyDrop<Waker> {
        // SAFETY: the functions below uphold the contract of `RawWaker`: any thread may call them
        // at any time, since a `SuspendedWait` is never freed.
        ManuallyDrop::new(unsafe { Waker::from_raw(raw(ptr::from_ref(self.0).cast())) })
    }

    /// The first half of a wake. Returns whether the wait is to be listed.
    #[cfg(all(test, upcall_loom))]
    pub fn begin_wake(&self) -> bool {
        self.0.signal.wake()
    }

    /// Whether the waker belongs to such a wait.
    #[cfg(feature = "runtime")]
    pub fn made(waker: &Waker) -> bool {
        ptr::eq(waker.vtable(), &VTABLE)
    }

    /// Begins a poll of the future, and ends a suspension.
    pub fn begin_poll(&self) {
        self.0.signal.begin_poll();
    }

    /// Notes that the wait is about to suspend `coroutine`. If the wait was woken since its poll
    /// began, the coroutine can go on at once, after others.
    pub fn suspend(&self, coroutine: Coroutine, at: &'static Location<'static>, future: Function) {
        let Self(wait) = *self;
        let now = now();
        wait.thread.warn_if_neglected(now);
        wait.coroutine.store(coroutine.as_ptr(), Relaxed);
        wait.since.store(now, Relaxed);
        wait.wait.begin(at, future);
        if wait.signal.suspend() {
            wait.thread.add(wait);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Self(wait) = *self;
        wait.signal.begin_poll();
        wait.wait.end();
        wait.host.set(None);
        // A signal handler's wait ends before the interrupted code goes on. So the list is borrowed
        // only below this frame, if at all; the place is lost then.
        if let Ok(mut free) = wait.thread.own.free.try_borrow_mut() {
            free.push(wait);
        }
    }
}

fn raw(wait: *const ()) -> RawWaker {
    RawWaker::new(wait, &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, wake, wake, |_| ());

fn wake(wait: *const ()) {
    // SAFETY: `Taken::waker` made the pointer from a `'static` reference.
    let wait: &'static SuspendedWait = unsafe { &*wait.cast() };
    wait.wake();
}

/// A suspended coroutine, for snapshots.
pub(crate) struct Suspended {
    pub coroutine: Coroutine,
    pub wait: (&'static Location<'static>, Function),
    pub since: Duration,
    /// Whether it can go on, and the host has not resumed it.
    pub is_ready: bool,
}

/// The suspended coroutines, each with the serial number of its thread.
pub(crate) fn suspended() -> Vec<(usize, Suspended)> {
    let all = all();
    let now = now();
    let waits = all.blocks.iter().copied().flatten().filter(|wait| wait.signal.is_suspended());
    let seen = |wait: &SuspendedWait| {
        let since = elapsed(wait.since.load(Relaxed), now);
        let is_ready = wait.signal.is_ready();
        Some(Suspended { coroutine: wait.coroutine()?, wait: wait.wait.get()?, since, is_ready })
    };
    waits.filter_map(|wait| Some((wait.thread.serial.load(Relaxed), seen(wait)?))).collect()
}

/// In the child of a fork: forgets all waits but `own`, those of the thread that forked; null if it
/// has none. They get a descriptor of their own, and a search begins for those in no list.
pub(crate) fn forget_others(own: *const ()) {
    // SAFETY: null, or from `own_waits_address`, and `CoroutineWaits` are never freed.
    let own: Option<&'static CoroutineWaits> = unsafe { own.cast::<CoroutineWaits>().as_ref() };
    let mut all = all();
    all.unused.clear();
    all.events.clear();
    all.blocks.retain(|block| own.is_some_and(|own| ptr::eq(block[0].thread, own)));
    all.blocks.iter().copied().flatten().for_each(|wait| wait.signal.begin_search());
    drop(all);
    if let Some(event) = own.and_then(|own| own.event.get()) {
        event.renew();
    }
}
