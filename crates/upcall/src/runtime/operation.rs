//! Operations: futures run by a worker or a `LocalRuntime` without fibers of their own.
//!
//! Whoever starts an operation makes its first poll. If the operation is not ready then, a worker
//! becomes its home, as a fiber's worker does at the fiber's beginning. From then on only the home
//! polls it, and wakes go to the home's queue.
//!
//! If the operation has woken itself in its first poll, any worker may go on with it: the operation
//! is added to the fibers not yet begun, and whoever polls it next is its home. Rule: **an
//! operation without a home is in its first poll, or waits for its next poll.** So no wake needs a
//! home before there is one: async-task hands a task woken during a poll to its executor after the
//! poll.

use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZero;
use std::panic::Location;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};

use async_task::FallibleTask;

use super::noting_waker::NotingWaker;
use super::queue::Queue;
use super::runnable::{Meta, Runnable};
use super::spawned::Refused;
use super::tame_waker::OperationPoll;
use super::workers;
use crate::sync::atomic::Ordering::{Relaxed, Release};
use crate::thread::waker;

/// An operation as seen from outside. Dropping it cancels the operation: its future is dropped by
/// its home, or by the poll in progress.
pub(crate) struct Operation(FallibleTask<(), Meta>);

impl Operation {
    /// Lets the operation go on by itself.
    pub fn detach(self) {
        self.0.detach();
    }
}

/// The first poll of an operation.
pub(crate) struct FirstPoll(Runnable, PhantomData<*mut ()>);

impl FirstPoll {
    /// Polls the operation on the calling thread.
    pub fn now(self) {
        self.0.run();
    }

    /// Leaves the poll to the operation's home, or to a worker. If there is none, hands the poll
    /// back, with the reason.
    pub fn later(self) -> Result<(), (Self, Refused)> {
        match self.0.metadata().home() {
            Some(home) => home.push(self.0),
            None => {
                workers::add(self.0).map_err(|(runnable, refused)| (Self(runnable, PhantomData), refused))?
            }
        }
        Ok(())
    }
}

/// Makes an operation for the workers.
pub(crate) fn sent<F: Future<Output = ()> + Send + 'static>(
    started_at: &'static Location<'static>,
    future: F,
) -> (FirstPoll, Operation) {
    // SAFETY: the future is `Send`.
    unsafe { new(None, started_at, future) }
}

/// Makes an operation for the calling thread's `LocalRuntime`; `None` if it has none.
pub(crate) fn local<F: Future<Output = ()> + 'static>(
    started_at: &'static Location<'static>,
    future: F,
) -> Option<(FirstPoll, Operation)> {
    let home = Queue::own_local()?;
    // SAFETY: the home is the calling thread's queue. `FirstPoll` is not `Send`, so the first poll
    // is made on this thread.
    Some(unsafe { new(Some(home), started_at, future) })
}

/// The calling thread's `LocalRuntime`, as the home of an operation.
#[derive(Clone, Copy)]
pub(crate) struct LocalHome(&'static Queue);

impl LocalHome {
    /// The calling thread's; `None` if it has none.
    pub fn own() -> Option<Self> {
        Queue::own_local().map(Self)
    }

    /// Whether its thread exists only in the process from which this one was forked.
    pub fn is_lost(self) -> bool {
        self.0.lost.load(Relaxed)
    }
}

/// Makes an operation for `home`, or for a worker.
///
/// # Safety
/// The future must be `Send`, or `home` must be the calling thread's queue and the first poll be
/// made on this thread.
unsafe fn new<F: Future<Output = ()> + 'static>(
    home: Option<&'static Queue>,
    started_at: &'static Location<'static>,
    future: F,
) -> (FirstPoll, Operation) {
    let make = async_task::Builder::new().metadata(Meta::new(home, started_at));
    let housed = |meta: &'static Meta| Housed { meta, place: None, future };
    // SAFETY: the metadata is in the task, as the future is, and the future is dropped first. Any
    // thread may call `schedule`. The caller guarantees that the future is `Send`, or that its home
    // is the calling thread's queue; only the home polls and drops a future.
    let (runnable, task) = unsafe { make.spawn_unchecked(housed, schedule) };
    (FirstPoll(runnable, PhantomData), Operation(task.fallible()))
}

/// Queues a woken operation at its home. Without one, this is the end of its first poll, on the
/// starter's thread, and a worker is to come.
fn schedule(runnable: Runnable) {
    match runnable.metadata().home() {
        Some(home) => home.push(runnable),
        // If there is no worker, the drop ends the operation.
        None => drop(workers::add_polled(runnable)),
    }
}

/// A future with its home, for the executor.
struct Housed<F> {
    meta: &'static Meta,
    /// The place in the home's list, since the first poll that was not ready.
    place: Option<Place>,
    future: F,
}

/// A place in the list of a queue's operations, counted from 1.
type Place = NonZero<usize>;

impl<F: Future<Output = ()>> Future for Housed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` stays where it is; the other fields rely on no address.
        let this = unsafe { self.get_unchecked_mut() };
        if this.place.is_some() && this.meta.home().is_some_and(Queue::ends_operations) {
            return Poll::Ready(());
        }
        let noting = NotingWaker::new(context.waker());
        // SAFETY: `noting` stays where it is during the poll.
        let waker = unsafe { noting.waker() };
        let is_first = this.meta.home().is_none();
        let poll_with = if is_first { &*waker } else { context.waker() };
        let _polls = OperationPoll::begin(poll_with);
        // SAFETY: `this` was pinned, and so its field is.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        let polled = future.poll(&mut Context::from_waker(poll_with));
        if polled.is_pending() && this.place.is_none() && !(is_first && noting.has_woken()) {
            this.place = find_home(this.meta, context.waker());
            // Without a home, nobody would poll it again. If its home ends operations, it has been
            // listed too late to be woken for this.
            if this.place.is_none() || this.meta.home().is_some_and(Queue::ends_operations) {
                return Poll::Ready(());
            }
        }
        polled
    }
}

impl<F> Drop for Housed<F> {
    fn drop(&mut self) {
        if let (Some(place), Some(home)) = (self.place, self.meta.home()) {
            waker::discard(home.remove_operation(place));
        }
    }
}

/// Calls `f` after the end of an operation. Meanwhile its worker counts as about to come to others.
pub(crate) fn after_end(f: impl FnOnce()) {
    struct Restore(&'static Queue, bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.is_after_end.store(self.1, Relaxed);
        }
    }

    let _restore = Queue::own().map(|own| Restore(own, own.is_after_end.swap(true, Relaxed)));
    f();
}

/// Enters an operation into the list of its home. The home of an operation without one is a worker
/// from now on; `None` if there is none.
#[inline(never)]
fn find_home(meta: &Meta, waker: &Waker) -> Option<Place> {
    let waker = waker.clone();
    if let Some(home) = meta.home() {
        return Some(home.add_operation(waker));
    }
    let mut place = None;
    let home = workers::home(|home| place = Some(home.add_operation(waker))).ok()?;
    meta.home.store(ptr::from_ref(home).cast_mut(), Release);
    place
}

/// The operations of one queue that have waited and not ended.
pub(super) struct Operations {
    wakers: Vec<Entry>,
    /// The first vacant entry, counted from 1; 0 for none.
    vacant: usize,
}

enum Entry {
    Waker(Waker),
    /// The next vacant entry, counted from 1; 0 for none.
    Vacant(usize),
}

impl Operations {
    pub const fn new() -> Self {
        Self { wakers: Vec::new(), vacant: 0 }
    }

    fn add(&mut self, waker: Waker) -> Place {
        let Some(place) = Place::new(self.vacant) else {
            self.wakers.push(Entry::Waker(waker));
            return Place::new(self.wakers.len()).expect("a list with an entry is not empty");
        };
        match std::mem::replace(&mut self.wakers[place.get() - 1], Entry::Waker(waker)) {
            Entry::Vacant(next) => self.vacant = next,
            Entry::Waker(_) => unreachable!("upcall: a vacant entry has no waker"),
        }
        place
    }

    fn remove(&mut self, place: Place) -> Option<Waker> {
        match std::mem::replace(&mut self.wakers[place.get() - 1], Entry::Vacant(self.vacant)) {
            Entry::Waker(waker) => {
                self.vacant = place.get();
                Some(waker)
            }
            Entry::Vacant(_) => unreachable!("upcall: an operation leaves its list once"),
        }
    }
}

impl Queue {
    /// Lists an operation, from any thread.
    fn add_operation(&self, waker: Waker) -> Place {
        let mut operations = self.operations.lock();
        self.operation_count.fetch_add(1, Relaxed);
        operations.add(waker)
    }

    fn remove_operation(&self, place: Place) -> Option<Waker> {
        let mut operations = self.operations.lock();
        let waker = operations.remove(place);
        if self.operation_count.fetch_sub(1, Relaxed) == 1 {
            // Gives back the memory once needed by a great many operations.
            *operations = Operations::new();
        }
        waker
    }

    /// Whether operations that have waited are to end at their next poll.
    #[inline]
    fn ends_operations(&self) -> bool {
        self.ends_operations.load(Relaxed)
    }

    /// Whether operations have waited here and not ended.
    pub fn has_operations(&self) -> bool {
        self.operation_count.load(Relaxed) != 0
    }

    /// The number of fibers and operations that have waited here and not ended, and one more during
    /// a run.
    pub fn load(&self) -> usize {
        self.begun() + self.operation_count.load(Relaxed) + usize::from(self.runs().is_some())
    }

    /// Whether fibers or operations have waited here and not ended.
    pub fn has_work(&self) -> bool {
        self.has_operations() || self.has_fibers()
    }

    /// Ends the operations of the queue: they are polled no more, and their home drops them.
    pub fn end_operations(&self) {
        self.ends_operations.store(true, Release);
        self.wake_operations();
    }

    /// Lets the queue's next operations live.
    pub fn allow_operations(&self) {
        self.ends_operations.store(false, Release);
    }

    /// Wakes all operations of the queue.
    pub fn wake_operations(&self) {
        let is_waker = |entry: &Entry| match entry {
            Entry::Waker(waker) => Some(waker.clone()),
            Entry::Vacant(_) => None,
        };
        let wakers: Vec<_> = self.operations.lock().wakers.iter().filter_map(is_waker).collect();
        wakers.into_iter().for_each(waker::wake);
    }
}
