//! Operations: futures run by a worker or a `LocalRuntime` without fibers of their own.
//!
//! Whoever starts an operation makes its first poll. If the operation is not ready then, a worker
//! becomes its home, as a fiber's worker does at the fiber's beginning. From then on only the home
//! polls it, and wakes go to the home's queue.
//!
//! If the operation has woken itself in its first poll, any worker may go on with it: the operation
//! is added to the fibers not yet begun, and whoever polls it next is its home. Rule: **an
//! operation without a home is in its first poll, or waits for its next poll.** So no wake needs a
//! home before there is one: an operation woken during a poll is scheduled after the poll.

use std::future::Future;
use std::panic::Location;
use std::ptr;
use std::task::{Context, Poll, Waker};

use super::operation_memory::{Handle, Header, Ready, Unpolled};
use super::queue::Queue;
use super::runnable::Meta;
use super::spawned::Refused;
use super::tame_waker::OperationPoll;
use super::workers;
use crate::sync::atomic::Ordering::{Relaxed, Release};
use crate::thread::waker;

/// An operation as seen from outside. Dropping it lets the operation go on by itself.
pub(crate) struct Operation(Handle);

impl Operation {
    /// Cancels the operation: its future is dropped by its home.
    pub fn cancel(self) {
        self.0.cancel();
    }
}

/// An operation before its first poll.
pub(crate) struct NewOperation(Unpolled);

impl NewOperation {
    /// Polls the operation on the calling thread. Returns it if it waits.
    #[inline]
    pub fn poll_now(self) -> Option<Operation> {
        self.0.poll().map(Operation)
    }

    /// Leaves the poll to the operation's home, or to a worker. If there is none, hands the
    /// operation back, with the reason.
    pub fn poll_later(self) -> Result<Operation, (Self, Refused)> {
        let add = |ready: Ready| match ready.header().meta.home() {
            Some(home) => {
                home.push(ready.into());
                Ok(())
            }
            None => workers::add(ready.into()).map_err(|(runnable, refused)| {
                let ready = runnable.into_operation();
                (ready.expect("upcall: the operation is handed back"), refused)
            }),
        };
        match self.0.later(add) {
            Ok(handle) => Ok(Operation(handle)),
            Err((unpolled, refused)) => Err((Self(unpolled), refused)),
        }
    }
}

/// Makes an operation for the workers.
pub(crate) fn sent<F: Future<Output = ()> + Send + 'static>(
    started_at: &'static Location<'static>,
    future: F,
) -> NewOperation {
    // SAFETY: the future is `Send`.
    NewOperation(unsafe { Unpolled::new(Meta::new(None, started_at), future) })
}

/// Makes an operation for the calling thread's `LocalRuntime`; `None` if it has none.
pub(crate) fn local<F: Future<Output = ()> + 'static>(
    started_at: &'static Location<'static>,
    future: F,
) -> Option<NewOperation> {
    let home = Queue::own_local()?;
    // SAFETY: the home is the calling thread's queue. `NewOperation` is not `Send`, so the first
    // poll is made on this thread.
    Some(NewOperation(unsafe { Unpolled::new(Meta::new(Some(home), started_at), future) }))
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

/// Queues a woken operation at its home. Without one, this is the end of its first poll, on the
/// starter's thread, and a worker is to come.
pub(super) fn schedule(ready: Ready) {
    match ready.header().meta.home() {
        Some(home) => home.push(ready.into()),
        // If there is no worker, the drop ends the operation.
        None => drop(workers::add_polled(ready.into())),
    }
}

/// Polls an operation by `poll`, for the owner of its future, and finds it a home if it waits.
///
/// `Ready` also means that the operation is to end.
pub(super) fn poll(
    header: &Header,
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<()>,
) -> Poll<()> {
    let meta = &header.meta;
    let is_listed = meta.place.load(Relaxed) != 0;
    if is_listed && meta.home().is_some_and(Queue::ends_operations) {
        return Poll::Ready(());
    }
    let _polls = OperationPoll::begin(context.waker());
    let polled = poll(context);
    let is_for_any_worker = || meta.home().is_none() && header.state.is_woken();
    if polled.is_pending() && !is_listed && !is_for_any_worker() {
        let place = find_home(meta, context.waker());
        meta.place.store(place.unwrap_or(0), Relaxed);
        // Without a home, nobody would poll it again. If its home ends operations, it has been
        // listed too late to be woken for this.
        if place.is_none() || meta.home().is_some_and(Queue::ends_operations) {
            return Poll::Ready(());
        }
    }
    polled
}

/// Removes an operation from the list of its home, before the drop of its future.
pub(super) fn leave(header: &Header) {
    let meta = &header.meta;
    let place = meta.place.load(Relaxed);
    if let (1.., Some(home)) = (place, meta.home()) {
        waker::discard(home.remove_operation(place));
    }
}

/// A place in the list of a queue's operations, counted from 1.
type Place = u32;

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
    vacant: Place,
}

enum Entry {
    Waker(Waker),
    /// The next vacant entry, counted from 1; 0 for none.
    Vacant(Place),
}

impl Operations {
    pub const fn new() -> Self {
        Self { wakers: Vec::new(), vacant: 0 }
    }

    fn add(&mut self, waker: Waker) -> Place {
        let place = self.vacant;
        if place == 0 {
            self.wakers.push(Entry::Waker(waker));
            return Place::try_from(self.wakers.len()).expect("upcall: so many operations have no memory");
        }
        match std::mem::replace(&mut self.wakers[place as usize - 1], Entry::Waker(waker)) {
            Entry::Vacant(next) => self.vacant = next,
            Entry::Waker(_) => unreachable!("upcall: a vacant entry has no waker"),
        }
        place
    }

    fn remove(&mut self, place: Place) -> Option<Waker> {
        match std::mem::replace(&mut self.wakers[place as usize - 1], Entry::Vacant(self.vacant)) {
            Entry::Waker(waker) => {
                self.vacant = place;
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
