//! The run queue of one thread: a worker's, or a `LocalRuntime`'s.
//!
//! What is ready on its own thread waits in `local`, which nobody else touches; what other threads woke waits in `remote`. A fiber
//! that has begun stays with its queue. Rule: **a queue is never freed, but used again**, when no fiber is left on it, so that whoever
//! just woke its last fiber may still unpark it.

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::task::Waker;

use super::event::Event;
use super::handover::{Kept, Remote};
use super::sys::thread_number;
use crate::fiber::host_runtime;
use crate::process::fork::{self, Held};
use crate::stack::coroutine::Running;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize};
use crate::sync::lock;
use crate::thread::{Hot, Parker};

/// A fiber that is ready to run, as its executor handles it.
pub(super) type Runnable = async_task::Runnable<Meta>;

/// What is known of a fiber from outside.
pub(super) struct Meta {
    /// Where it runs; null until it has begun.
    home: AtomicPtr<Queue>,
    pub spawned_at: &'static Location<'static>,
    /// Of which process it is.
    epoch: usize,
}

impl Meta {
    pub fn new(home: Option<&'static Queue>, spawned_at: &'static Location<'static>) -> Self {
        let home = AtomicPtr::new(home.map_or(ptr::null_mut(), |queue| ptr::from_ref(queue).cast_mut()));
        Self { home, spawned_at, epoch: fork::epoch() }
    }

    /// Whether it is a fiber of a thread that is only in a process from which this one was forked.
    pub fn is_lost(&self) -> bool {
        self.home().map_or(self.epoch != fork::epoch(), |home| home.lost.load(Relaxed))
    }

    pub fn home(&self) -> Option<&'static Queue> {
        // SAFETY: null, or a queue, which is never freed.
        unsafe { self.home.load(Acquire).as_ref() }
    }
}

/// Places for fibers that an empty list keeps.
pub(super) const KEPT_PLACES: usize = 1024;

/// See the module.
pub(crate) struct Queue {
    local: UnsafeCell<VecDeque<Runnable>>,
    remote: Remote<Runnable>,
    /// The owner's.
    parker: AtomicPtr<Parker>,
    /// The fiber that the owner's code spawned last, if nobody has begun it: the watcher may take it over.
    newest: Kept,
    /// The owner's number.
    pub thread: AtomicI32,
    /// Counts what was run; the watcher sees by it that a worker is stuck.
    pub steps: AtomicUsize,
    /// Where the fiber was spawned that runs; null if none does.
    runs: AtomicPtr<Location<'static>>,
    /// How many runs are in progress, one inside a wait in the other.
    pub depth: Cell<usize>,
    /// What to do when it has been closed, if it is to be.
    closed: Cell<Option<fn(&'static Queue)>>,
    /// The fibers that have waited once and not ended.
    fibers: Mutex<Listed>,
    /// Tells the host's event loop that something can run.
    pub event: Option<Event>,
    /// Its thread is not in this process, which was forked from another one.
    lost: AtomicBool,
}

// SAFETY: `local`, `depth` and `closed` are used by the thread alone that owns the queue; the rest is for all.
unsafe impl Sync for Queue {}

/// A run in progress.
struct Run {
    queue: &'static Queue,
    /// What ran outside of it.
    before: *mut Location<'static>,
}

impl Drop for Run {
    #[inline(always)]
    fn drop(&mut self) {
        self.queue.depth.set(self.queue.depth.get() - 1);
        self.queue.runs.store(self.before, Relaxed);
    }
}

/// The head of a list of fibers. Rule: **its members are alive**: they leave it before they end (`at_end`).
struct Listed(Option<NonNull<Running>>);

// SAFETY: the list is used under its lock, and its members are alive.
unsafe impl Send for Listed {}

/// All there are.
static ALL: Mutex<Vec<&'static Queue>> = Mutex::new(Vec::new());

/// Takes the locks of the calling thread's queue, before a fork.
pub(super) fn hold_locks(held: &mut Vec<Held>) {
    held.push(Box::new(lock(&ALL)));
    if let Some(own) = Queue::own() {
        held.push(Box::new(lock(&own.fibers)));
        held.push(Box::new(own.remote.lock()));
    }
}

/// In the child of a fork: all queues but the calling thread's are lost.
pub(super) fn forget_others() {
    let mut all = lock(&ALL);
    all.iter().filter(|queue| !queue.is_own()).for_each(|queue| queue.lost.store(true, Relaxed));
    all.retain(|queue| queue.is_own());
    drop(all);
    let Some(own) = Queue::own() else { return };
    own.thread.store(thread_number(), Relaxed);
    if let Some(event) = &own.event {
        event.renew();
    }
    // What they wait for may be lost.
    let mut waiting = Vec::new();
    own.for_each_fiber(|fiber| {
        let task = fiber.executor.task.take();
        waiting.extend(task.clone());
        fiber.executor.task.set(task);
    });
    waiting.into_iter().for_each(Waker::wake);
}

thread_local! {
    /// The queue that the thread owns.
    static OWN: Cell<Option<&'static Queue>> = const { Cell::new(None) };
}

impl Queue {
    pub fn new(event: Option<Event>) -> &'static Queue {
        let queue: &'static Queue = Box::leak(Box::new(Queue {
            local: UnsafeCell::default(),
            remote: Remote::new(),
            parker: AtomicPtr::new(ptr::null_mut()),
            newest: Kept::nothing(),
            thread: AtomicI32::new(0),
            steps: AtomicUsize::new(0),
            runs: AtomicPtr::new(ptr::null_mut()),
            depth: Cell::new(0),
            closed: Cell::new(None),
            fibers: Mutex::new(Listed(None)),
            event,
            lost: AtomicBool::new(false),
        }));
        lock(&ALL).push(queue);
        queue
    }

    /// The calling thread's queue.
    #[inline]
    pub fn own() -> Option<&'static Queue> {
        OWN.get()
    }

    /// Makes the queue the calling thread's, which sleeps at `parker`.
    pub fn begin(&'static self, parker: &'static Parker) {
        self.parker.store(ptr::from_ref(parker).cast_mut(), Release);
        self.thread.store(thread_number(), Relaxed);
        OWN.set(Some(self));
    }

    /// Ends that.
    pub fn end(&'static self) {
        OWN.set(None);
    }

    fn is_own(&self) -> bool {
        OWN.get().is_some_and(|own| ptr::eq(own, self))
    }

    /// Wakes the owner.
    pub fn unpark(&self) {
        // SAFETY: null, or a parker, which is never freed.
        if let Some(parker) = unsafe { self.parker.load(Acquire).as_ref() } {
            parker.unpark();
        }
    }

    /// Calls `f`, which calls nobody who could get here again, with what only the owner has. On its thread.
    #[inline(always)]
    fn with_local<R>(&self, f: impl FnOnce(&mut VecDeque<Runnable>) -> R) -> R {
        debug_assert!(self.is_own());
        // SAFETY: nobody but the owner, on whose thread this is, gets at it, and `f` does not come here again.
        f(unsafe { &mut *self.local.get() })
    }

    /// Adds a fiber that is ready, from any thread.
    #[inline]
    pub fn push(&self, runnable: Runnable) {
        if self.is_own() {
            self.with_local(|local| local.push_back(runnable));
            if let Some(event) = &self.event {
                event.signal();
            }
        } else {
            self.push_remote(runnable);
        }
    }

    fn push_remote(&self, runnable: Runnable) {
        if self.lost.load(Relaxed) {
            // It is run where its thread is.
            return std::mem::forget(runnable);
        }
        self.remote.push(runnable);
        if let Some(event) = &self.event {
            event.signal();
        }
        self.unpark();
    }

    /// The next fiber that has begun or been given to this queue. On the owner's thread.
    #[inline(always)]
    pub fn pop(&self) -> Option<Runnable> {
        // Those of other threads get their turn also if the own never end.
        const TURN: usize = 64;
        if self.steps.load(Relaxed) % TURN == 0 {
            self.with_local(|local| self.remote.fetch(local));
        }
        self.with_local(|local| {
            local.pop_front().or_else(|| {
                self.remote.fetch(local);
                local.pop_front()
            })
        })
    }

    /// Whether the owner has something to run. On its thread.
    pub fn is_ready(&self) -> bool {
        !self.with_local(|local| local.is_empty()) || self.remote.may_have_some() || self.has_newest()
    }

    /// Gives memory back that a great many of ready fibers once needed. On the owner's thread, when it has nothing to run.
    pub fn shrink(&self) {
        self.with_local(|local| local.shrink_to(KEPT_PLACES));
    }

    /// The same as `is_ready`, seeing everything that another thread pushed before it found the event signalled.
    pub fn is_ready_for_sure(&self) -> bool {
        !self.with_local(|local| local.is_empty()) || self.remote.has_some()
    }

    /// Drops all fibers of the queue, where they wait, then calls `closed`; now, or if the thread is inside some of them, when it has left them.
    /// On the owner's thread.
    pub fn close_when_left(&'static self, closed: fn(&'static Queue)) {
        self.closed.set(Some(closed));
        if self.depth.get() == 0 {
            self.close();
        }
    }

    fn close(&'static self) {
        let Some(closed) = self.closed.take() else { return };
        // A destructor that waits is not to run fibers that are about to be dropped.
        Hot::here().set_meanwhile(None);
        loop {
            while let Some(runnable) = self.pop() {
                drop(runnable);
            }
            // Those that wait are woken to be dropped too. Each may be on the list no more when it is its turn.
            let mut waiting = Vec::new();
            self.for_each_fiber(|fiber| waiting.extend(fiber.executor.task.take()));
            if waiting.is_empty() {
                if !self.has_fibers() {
                    break;
                }
                // Another thread is just about to hand over the last that it woke.
                std::thread::yield_now();
            }
            waiting.into_iter().for_each(Waker::wake);
        }
        closed(self);
    }

    /// Where the fiber was spawned that runs, if one does.
    pub fn runs(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or what `run` stored.
        unsafe { self.runs.load(Relaxed).as_ref() }
    }

    /// Runs a fiber until it waits or ends. On the owner's thread.
    ///
    /// A fiber's panic is its result. Should anything else unwind out of it, callers that go on with others catch it, around all that they run: a
    /// `catch_unwind` here would be one more return after a switch of stacks (see `wait`).
    #[inline(always)]
    pub fn run(&'static self, runnable: Runnable) {
        let Meta { home, spawned_at, .. } = runnable.metadata();
        if home.load(Relaxed).is_null() {
            home.store(ptr::from_ref(self).cast_mut(), Release);
        }
        self.steps.store(self.steps.load(Relaxed).wrapping_add(1), Relaxed);
        let run = Run { queue: self, before: self.runs.load(Relaxed) };
        self.runs.store(ptr::from_ref(*spawned_at).cast_mut(), Relaxed);
        self.depth.set(self.depth.get() + 1);
        host_runtime::outside_of_tasks(|| _ = runnable.run());
        drop(run);
        if self.depth.get() == 0 && self.closed.get().is_some() {
            self.close();
        }
    }

    /// Keeps a fiber that was spawned here for the owner to begin soon. Hands back the one that was kept before.
    #[inline]
    pub fn keep_newest(&self, runnable: Runnable) -> Option<Runnable> {
        let before = self.newest.replace(runnable.into_raw());
        // SAFETY: whoever takes the pointer out has the Runnable.
        before.map(|raw| unsafe { Runnable::from_raw(raw) })
    }

    /// Takes that fiber, from any thread.
    #[inline]
    pub fn take_newest(&self) -> Option<Runnable> {
        // SAFETY: as in `keep_newest`.
        self.newest.take().map(|raw| unsafe { Runnable::from_raw(raw) })
    }

    pub fn has_newest(&self) -> bool {
        !self.newest.is_nothing()
    }

    /// Lists a fiber that waits, until its end. On its thread.
    #[cold]
    pub fn list(&self, fiber: &Running) {
        let mut head = lock(&self.fibers);
        fiber.executor.next.set(head.0);
        // SAFETY: members are alive.
        if let Some(next) = head.0.map(|next| unsafe { next.as_ref() }) {
            next.executor.previous.set(Some(fiber.into()));
        }
        head.0 = Some(fiber.into());
        fiber
            .executor
            .at_end
            .set(Some(|fiber| Queue::own().expect("upcall: a fiber ends on its own thread").unlist(fiber)));
    }

    fn unlist(&self, fiber: &Running) {
        let mut head = lock(&self.fibers);
        let (next, previous) = (fiber.executor.next.get(), fiber.executor.previous.get());
        // SAFETY: members are alive.
        match previous.map(|previous| unsafe { previous.as_ref() }) {
            Some(previous) => previous.executor.next.set(next),
            None => head.0 = next,
        }
        // SAFETY: as above.
        if let Some(next) = next.map(|next| unsafe { next.as_ref() }) {
            next.executor.previous.set(previous);
        }
    }

    /// Calls `look` for each fiber that has waited and not ended. Of a fiber of another thread, only its name, where it was spawned and where it waits may
    /// be looked at.
    pub fn for_each_fiber(&self, mut look: impl FnMut(&Running)) {
        let head = lock(&self.fibers);
        let mut next = head.0;
        // SAFETY: members are alive.
        while let Some(fiber) = next.map(|fiber| unsafe { fiber.as_ref() }) {
            look(fiber);
            next = fiber.executor.next.get();
        }
    }

    pub fn has_fibers(&self) -> bool {
        lock(&self.fibers).0.is_some()
    }
}
