//! The run queue of one thread: a worker's, or a `LocalRuntime`'s.
//!
//! Ready fibers woken by their own thread wait in `local`. Nobody else touches that list. Those
//! woken by other threads wait in `remote`, and so do those woken by a signal handler that
//! interrupted the owner at `local`. A fiber stays with its queue once it has begun. Rule: **a
//! queue is never freed, but reused after its last fiber has gone**, so that a thread that just
//! woke this last fiber may still unpark it.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::compiler_fence;

use stackbounds::stack_pointer;

use super::listed::Listed;
use super::mailbox::Mailbox;
use super::operation::Operations;
use super::runnable::{Meta, Runnable};
use crate::coroutine::frames::{Frame, Frames};
use crate::fiber::host_runtime;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize};
use crate::sync::{Event, Lock, Remote, Whose, Word, hold};
use crate::sys::thread_number;
use crate::thread::{Parker, ThreadState, waker};

/// The capacity that an empty list keeps, in fibers.
pub(super) const MAX_IDLE_CAPACITY: usize = 1024;

/// The run queue of one thread: its ready fibers, and a list of its waiting ones.
pub(crate) struct Queue {
    /// Borrowed during each change, since a signal handler may come at any instruction.
    local: RefCell<VecDeque<Runnable>>,
    remote: Remote<Runnable>,
    /// The number of the queue's `LocalRuntime`, while it takes fibers from other threads; else 0.
    /// Fibers not yet begun are added under this lock.
    open_for: Lock<usize>,
    /// The owner's parker.
    parker: AtomicPtr<Parker>,
    /// The last fiber spawned by the owner's code, if nobody has begun it. The watcher may take it
    /// over.
    pub(super) newest: Mailbox,
    /// The address of the `Meta` of the fiber last put there, to compare.
    pub(super) newest_meta: Cell<*const Meta>,
    /// Whether a frame joins that fiber.
    pub(super) newest_is_joined: Cell<bool>,
    /// The number of the owner's frames inside `JoinHandle::join`.
    pub(super) joining: Cell<usize>,
    /// The system's number of the owner.
    pub thread: AtomicI32,
    /// The number of runs. If it stops growing, the watcher knows that the worker is stuck.
    pub steps: AtomicUsize,
    /// Where the running fiber was spawned; null if none runs.
    runs: AtomicPtr<Location<'static>>,
    /// The runs in progress: each is inside a wait of the one before.
    depth: Frames,
    /// What to call once the queue is closed, if it is to be closed.
    closed: Cell<Option<fn(&'static Queue)>>,
    /// The fibers that have waited at least once and not ended.
    pub(super) fibers: Lock<Listed>,
    /// The number of these fibers. Only the owner changes it.
    pub(super) begun: AtomicUsize,
    /// The operations that have waited at least once and not ended, and their number.
    pub(super) operations: Lock<Operations>,
    pub(super) operation_count: AtomicUsize,
    /// Whether they are to end at their next poll.
    pub(super) ends_operations: AtomicBool,
    /// Whether the running operation has ended, and the rest of the run is its completion.
    pub(super) is_after_end: AtomicBool,
    /// Whether the owner serves the queue: from `begin` to `end`.
    attended: AtomicBool,
    /// Tells the host's event loop that a fiber can run.
    pub event: Option<Event>,
    /// Whether the owner is missing in this process, because a fork did not copy its thread.
    pub(super) lost: AtomicBool,
}

// SAFETY: only the owner's thread uses `local`, `newest_meta`, `newest_is_joined`, `joining`,
// `depth` and `closed`. All other fields are atomics, locks, or made of them.
unsafe impl Sync for Queue {}

/// A borrow of the owner's ready fibers.
struct Local<'a>(RefMut<'a, VecDeque<Runnable>>);

impl Drop for Local<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // The compiler keeps all changes before the end of the borrow.
        compiler_fence(SeqCst);
    }
}

/// A run in progress.
struct Run {
    queue: &'static Queue,
    number: usize,
    /// The value of `runs` outside this run.
    before: *mut Location<'static>,
}

impl Drop for Run {
    #[inline(always)]
    fn drop(&mut self) {
        self.queue.depth.pop_to(self.number);
        self.queue.runs.store(self.before, Relaxed);
    }
}

/// All queues of the process.
static ALL: Lock<Vec<&'static Queue>> = Lock::new(Vec::new());

/// Calls `visit` with locks, for forks: that of the list, and those of the calling thread's queue.
pub(super) fn each_lock(visit: &mut dyn FnMut(&'static Word, Whose)) {
    visit(ALL.word(), Whose::All);
    if let Some(own) = Queue::own() {
        visit(own.open_for.word(), Whose::Own);
        visit(own.fibers.word(), Whose::Own);
        visit(own.operations.word(), Whose::Own);
    }
}

/// In the child of a fork: marks all queues as lost, except the one of the thread that forked.
pub(super) fn forget_others(own: Option<&'static Queue>) {
    let is_own = |queue: &Queue| own.is_some_and(|own| ptr::eq(own, queue));
    let mut all = hold(&ALL);
    all.iter().filter(|queue| !is_own(queue)).for_each(|queue| queue.lost.store(true, Relaxed));
    all.retain(|queue| is_own(queue));
    drop(all);
    if let Some(event) = own.and_then(|own| own.event.as_ref()) {
        event.renew();
    }
}

/// In the child of a fork, on the thread that forked: wakes its fibers, since their events may be
/// lost.
pub(super) fn look_again() {
    let Some(own) = Queue::own() else { return };
    own.thread.store(thread_number(), Relaxed);
    let mut waiting = Vec::new();
    own.for_each_fiber(|fiber| {
        let task = fiber.executor.task.take();
        waiting.extend(task.clone());
        fiber.executor.task.set(task);
    });
    waiting.into_iter().for_each(waker::wake);
    own.wake_operations();
}

thread_local! {
    /// The queue owned by the thread.
    static OWN: Cell<Option<&'static Queue>> = const { Cell::new(None) };
}

impl Queue {
    pub fn new(event: Option<Event>) -> &'static Queue {
        let queue: &'static Queue = Box::leak(Box::new(Queue {
            local: RefCell::default(),
            remote: Remote::new(),
            open_for: Lock::new(0),
            parker: AtomicPtr::new(ptr::null_mut()),
            newest: Mailbox::nothing(),
            newest_meta: Cell::new(ptr::null()),
            newest_is_joined: Cell::new(false),
            joining: Cell::new(0),
            thread: AtomicI32::new(0),
            steps: AtomicUsize::new(0),
            runs: AtomicPtr::new(ptr::null_mut()),
            depth: Frames::new(),
            closed: Cell::new(None),
            fibers: Lock::new(Listed(None)),
            begun: AtomicUsize::new(0),
            operations: Lock::new(Operations::new()),
            operation_count: AtomicUsize::new(0),
            ends_operations: AtomicBool::new(false),
            is_after_end: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            event,
            lost: AtomicBool::new(false),
        }));
        hold(&ALL).push(queue);
        queue
    }

    /// The calling thread's queue.
    #[inline]
    pub fn own() -> Option<&'static Queue> {
        OWN.get()
    }

    /// The queue of the calling thread's `LocalRuntime`.
    pub fn own_local() -> Option<&'static Queue> {
        Self::own().filter(|own| own.event.is_some())
    }

    /// Makes the calling thread the owner of the queue. It sleeps at `parker`.
    pub fn begin(&'static self, parker: &'static Parker) {
        self.parker.store(ptr::from_ref(parker).cast_mut(), Release);
        self.thread.store(thread_number(), Relaxed);
        self.joining.set(0);
        OWN.set(Some(self));
        self.attended.store(true, Relaxed);
    }

    /// Ends the calling thread's ownership of the queue.
    pub fn end(&'static self) {
        self.attended.store(false, Relaxed);
        OWN.set(None);
    }

    /// Whether the owner serves the queue, and is neither beginning nor ending.
    pub fn is_attended(&self) -> bool {
        self.attended.load(Relaxed)
    }

    /// Whether the owner sleeps, in a wait or idle. If so, it runs its fibers when they are woken.
    pub fn sleeps(&self) -> bool {
        // SAFETY: null, or a parker, and parkers are never freed.
        unsafe { self.parker.load(Acquire).as_ref() }.is_some_and(Parker::is_parked)
    }

    fn is_own(&self) -> bool {
        OWN.get().is_some_and(|own| ptr::eq(own, self))
    }

    /// Wakes the owner.
    pub fn unpark(&self) {
        // SAFETY: null, or a parker, and parkers are never freed.
        if let Some(parker) = unsafe { self.parker.load(Acquire).as_ref() } {
            parker.unpark();
        }
    }

    /// Borrows the owner's ready fibers. `None` in a signal handler or an allocator that has
    /// interrupted such a borrow. Only on the owner's thread.
    #[inline(always)]
    fn local(&self) -> Option<Local<'_>> {
        debug_assert!(self.is_own());
        let local = self.local.try_borrow_mut().ok()?;
        compiler_fence(SeqCst);
        Some(Local(local))
    }

    /// Adds a ready fiber, from any thread.
    #[inline]
    pub fn push(&self, runnable: Runnable) {
        let local = if self.is_own() { self.local() } else { None };
        let Some(mut local) = local else { return self.push_remote(runnable) };
        local.0.push_back(runnable);
        drop(local);
        if let Some(event) = &self.event {
            event.signal();
        }
        if ThreadState::current().sleeps() {
            // This is a signal handler, and it has interrupted the owner's sleep.
            self.unpark();
        }
    }

    fn push_remote(&self, runnable: Runnable) {
        if self.lost.load(Relaxed) {
            // It runs in the process of its thread. This copy is leaked.
            return std::mem::forget(runnable);
        }
        self.remote.push(runnable);
        if let Some(event) = &self.event {
            event.signal();
        }
        self.unpark();
    }

    /// Lets other threads that know the queue's number add fibers not yet begun.
    pub fn open(&'static self) {
        static OPENED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = OPENED.fetch_add(1, Relaxed) + 1;
        *hold(&self.open_for) = number;
    }

    /// The number under which the queue is open; 0 if it is closed.
    pub fn number(&'static self) -> usize {
        *hold(&self.open_for)
    }

    /// Whether the queue is open under `number`, in this process.
    pub fn is_open(&'static self, number: usize) -> bool {
        number != 0 && !self.lost.load(Relaxed) && self.number() == number
    }

    /// Adds a fiber not yet begun, from any thread, if the queue is open under `number`; else hands
    /// it back.
    pub fn push_if_open(&'static self, number: usize, runnable: Runnable) -> Result<(), Runnable> {
        if number == 0 || self.lost.load(Relaxed) {
            return Err(runnable);
        }
        let open_for = hold(&self.open_for);
        if *open_for != number {
            return Err(runnable);
        }
        self.remote.push(runnable);
        drop(open_for);
        if let Some(event) = &self.event {
            event.signal();
        }
        self.unpark();
        Ok(())
    }

    /// Takes the next fiber begun on this queue or given to it. Only on the owner's thread.
    #[inline(always)]
    pub fn pop(&self) -> Option<Runnable> {
        // Fibers of other threads get their turn, even if the local list never empties.
        const TURN: usize = 64;
        let mut local = self.local()?;
        if self.steps.load(Relaxed) % TURN == 0 {
            self.remote.fetch(&mut *local.0);
        }
        local.0.pop_front().or_else(|| {
            self.remote.fetch(&mut *local.0);
            local.0.pop_front()
        })
    }

    /// Whether the owner has something to run. Only on its thread.
    pub fn is_ready(&self) -> bool {
        self.local().is_none_or(|local| !local.0.is_empty())
            || self.remote.may_have_some()
            || self.has_newest()
    }

    /// Gives back memory once needed by a great many ready fibers. Only on the owner's thread, when
    /// it has nothing to run.
    pub fn shrink(&self) {
        if let Some(mut local) = self.local() {
            local.0.shrink_to(MAX_IDLE_CAPACITY);
        }
    }

    /// Like `is_ready`, but certain to see each fiber pushed by a thread that then found the event
    /// signalled.
    pub fn is_ready_for_sure(&self) -> bool {
        self.local().is_none_or(|local| !local.0.is_empty()) || self.remote.has_some()
    }

    /// Drops all fibers of the queue in their waits, then calls `closed`.
    ///
    /// This happens now, or, if the thread is inside some of the fibers, when it has left them.
    /// From now on, other threads cannot add fibers not yet begun. Only on the owner's thread.
    pub fn close_when_left(&'static self, closed: fn(&'static Queue)) {
        *hold(&self.open_for) = 0;
        self.closed.set(Some(closed));
        if self.depth() == 0 {
            self.close();
        }
    }

    /// The number of runs in progress.
    pub fn depth(&self) -> usize {
        let sp = stack_pointer();
        if self.depth.count() == 0 {
            0
        } else {
            self.depth.live(|run| ThreadState::current().is_abandoned(run, sp))
        }
    }

    fn close(&'static self) {
        let Some(closed) = self.closed.take() else { return };
        // A waiting destructor must not run fibers about to be dropped.
        ThreadState::current().set_nested_executor(None);
        self.end_operations();
        loop {
            while let Some(runnable) = self.pop() {
                drop(runnable);
            }
            // Waiting fibers are woken, to be dropped as well. Each may have left the list before
            // its turn.
            let mut waiting = Vec::new();
            self.for_each_fiber(|fiber| waiting.extend(fiber.executor.task.take()));
            if waiting.is_empty() {
                if !self.has_work() {
                    break;
                }
                // Another thread is about to hand over the last fiber it woke.
                std::thread::yield_now();
            }
            waiting.into_iter().for_each(waker::wake);
        }
        closed(self);
    }

    /// Where the running fiber was spawned, if one runs.
    pub fn runs(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or stored by `run` from a reference to a static.
        unsafe { self.runs.load(Relaxed).as_ref() }
    }

    /// Runs a fiber until it waits or ends. Only on the owner's thread.
    ///
    /// A fiber's panic is its result. If anything else unwinds out of the fiber, the caller catches
    /// it, once around all the fibers that it runs: a `catch_unwind` here would be one more return
    /// after a switch of stacks (see `wait_as`).
    #[inline(always)]
    pub fn run(&'static self, runnable: Runnable) {
        let Meta { home, spawned_at, .. } = runnable.metadata();
        if home.load(Relaxed).is_null() {
            home.store(ptr::from_ref(self).cast_mut(), Release);
        }
        self.steps.store(self.steps.load(Relaxed).wrapping_add(1), Relaxed);
        let frame = Frame { sp: stack_pointer(), suspensions: 0 };
        let number = self.depth.push(frame, |run| ThreadState::current().is_abandoned(run, frame.sp));
        let run = Run { queue: self, number, before: self.runs.load(Relaxed) };
        self.runs.store(ptr::from_ref(*spawned_at).cast_mut(), Relaxed);
        host_runtime::outside_of_tasks(|| runnable.run());
        drop(run);
        if number == 0 && self.closed.get().is_some() {
            self.close();
        }
    }

    /// Whether the calling code runs inside a fiber of the queue. A signal handler does not if it
    /// has interrupted the owner between two fibers, or in its sleep. Only on the owner's thread.
    #[inline]
    pub fn runs_own_code(&self) -> bool {
        !self.runs.load(Relaxed).is_null() && !ThreadState::current().sleeps()
    }

    /// Whether the owner, if it is not idle, is about to look for the next to run.
    pub fn is_about_to_look(&self) -> bool {
        self.runs().is_none() || self.is_after_end.load(Relaxed)
    }

    /// The number of fibers that have waited here and not ended.
    #[inline]
    pub fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }
}
