//! The memory of an operation: its state, its data for executors, and its future in one block.
//!
//! Rule: **each pointer to a [`Header`] stands for one reference** of the operation's
//! [state](OperationState), or is borrowed from one.

use std::cell::UnsafeCell;
use std::future::Future;
use std::mem::{ManuallyDrop, forget};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::operation;
use super::operation_state::{OperationState, Release};
use super::runnable::Meta;

/// The beginning of an operation's memory, alike for all types of futures.
pub(super) struct Header {
    pub state: OperationState,
    calls: &'static Calls,
    pub meta: Meta,
}

/// The functions that know the type of the future.
struct Calls {
    /// Polls the future. Only for the owner of the future.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> Poll<()>,
    /// Drops the future. Only for its owner, once.
    drop: unsafe fn(NonNull<Header>),
    /// Frees the memory. Only for its owner, after the drop of the future.
    free: unsafe fn(NonNull<Header>),
}

#[repr(C)]
struct Block<F> {
    header: Header,
    future: UnsafeCell<ManuallyDrop<F>>,
}

impl<F: Future<Output = ()>> Block<F> {
    const CALLS: &'static Calls = &Calls { poll: Self::poll, drop: Self::drop, free: Self::free };

    unsafe fn poll(block: NonNull<Header>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the block is of this type, as its `Calls` are, and the caller owns the future.
        // The future stays in its place until `drop`.
        let future = unsafe { Pin::new_unchecked(&mut **block.cast::<Self>().as_ref().future.get()) };
        future.poll(context)
    }

    unsafe fn drop(block: NonNull<Header>) {
        // SAFETY: as in `poll`. The caller drops the future once.
        unsafe { ManuallyDrop::drop(&mut *block.cast::<Self>().as_ref().future.get()) }
    }

    unsafe fn free(block: NonNull<Header>) {
        // SAFETY: the block comes from a box of this type, and the caller owns it. The future is
        // dropped by nobody here.
        drop(unsafe { Box::from_raw(block.cast::<Self>().as_ptr()) });
    }
}

/// An operation whose future is ready to be polled. If it is dropped instead, so is the future.
pub(super) struct Ready(NonNull<Header>);

/// A reference to an operation.
struct Reference(NonNull<Header>);

impl Reference {
    fn header(&self) -> &Header {
        // SAFETY: the reference keeps the memory.
        unsafe { self.0.as_ref() }
    }

    /// Converts the reference into the one of a `Ready`.
    fn into_ready(self) -> Ready {
        Ready(ManuallyDrop::new(self).0)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let header = self.header();
        match header.state.release() {
            Release::Nothing => {}
            // SAFETY: the memory belongs to the caller now. The operation has ended, so its future
            // has been dropped.
            Release::Free => unsafe { (header.calls.free)(self.0) },
            Release::Ready => operation::schedule(Ready(self.0)),
        }
    }
}

/// The future of an operation, owned by the calling thread during a poll. The drop ends the
/// operation.
struct Polling(Reference);

impl Polling {
    /// Polls the future. Returns the operation's reference if the operation waits.
    #[inline]
    fn poll(self) -> Option<Reference> {
        let raw = self.0.0;
        // SAFETY: the vtable's functions take the pointer. This waker is borrowed from the poll's
        // reference: it is not dropped.
        let waker = ManuallyDrop::new(unsafe { Waker::new(raw.as_ptr().cast(), &WAKER) });
        let mut context = Context::from_waker(&waker);
        let header = self.0.header();
        // SAFETY: the future is the poller's.
        let poll = |context: &mut Context<'_>| unsafe { (header.calls.poll)(raw, context) };
        match operation::poll(header, &mut context, poll) {
            Poll::Ready(()) => None,
            Poll::Pending => {
                let this = ManuallyDrop::new(self);
                Some(Reference(this.0.0))
            }
        }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let header = self.0.header();
        operation::leave(header);
        // SAFETY: the future is the poller's. The state stays `RUNNING`, so nobody uses it again.
        unsafe { (header.calls.drop)(self.0.0) }
    }
}

impl Ready {
    /// Polls the future, or drops it if the operation was cancelled.
    pub fn run(self) {
        let polling = Polling(Reference(self.into_raw()));
        if polling.0.header().state.run() {
            return;
        }
        let Some(reference) = polling.poll() else { return };
        if reference.header().state.wait() {
            operation::schedule(reference.into_ready());
        }
    }

    pub fn header(&self) -> &Header {
        // SAFETY: the reference keeps the memory.
        unsafe { self.0.as_ref() }
    }

    pub fn into_raw(self) -> NonNull<Header> {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// `raw` must come from `into_raw`, and be converted back once.
    pub unsafe fn from_raw(raw: NonNull<Header>) -> Self {
        Self(raw)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let polling = Polling(Reference(self.0));
        polling.0.header().state.run();
    }
}

/// An operation before its first poll, and its only reference. The drop ends it.
pub(super) struct Unpolled(Polling);

impl Unpolled {
    /// # Safety
    /// The future must be `Send`, or the home in `meta` be the calling thread's queue.
    pub unsafe fn new<F: Future<Output = ()> + 'static>(meta: Meta, future: F) -> Self {
        let header = Header { state: OperationState::new(), calls: Block::<F>::CALLS, meta };
        let block = Box::new(Block { header, future: UnsafeCell::new(ManuallyDrop::new(future)) });
        Self(Polling(Reference(NonNull::from(Box::leak(block)).cast())))
    }

    /// Polls the future on the calling thread. Returns the operation's handle if it waits.
    #[inline]
    pub fn poll(self) -> Option<Handle> {
        let reference = self.0.poll()?;
        if reference.header().state.wait() {
            reference.header().state.acquire();
            operation::schedule(Ready(reference.0));
        }
        Some(Handle(reference))
    }

    /// Makes the operation ready, and calls `add`. If that hands it back, nothing has happened.
    pub fn later<E>(self, add: impl FnOnce(Ready) -> Result<(), (Ready, E)>) -> Result<Handle, (Self, E)> {
        let raw = self.0.0.0;
        forget(self);
        // SAFETY: the memory stays: nobody else has a reference.
        unsafe { raw.as_ref() }.state.begins_later();
        let handle = Handle(Reference(raw));
        match add(Ready(raw)) {
            Ok(()) => Ok(handle),
            Err((ready, error)) => {
                forget((ready, handle));
                // SAFETY: as above. Nobody has polled the operation.
                unsafe { raw.as_ref() }.state.begins_now();
                Err((Self(Polling(Reference(raw))), error))
            }
        }
    }
}

/// The handle of an operation.
pub(super) struct Handle(Reference);

impl Handle {
    /// Has the operation's home drop the future.
    pub fn cancel(self) {
        if self.0.header().state.cancel() {
            operation::schedule(self.0.into_ready());
        }
    }
}

// SAFETY: a `Ready` is run or dropped by the operation's home, as `schedule` sees to. A future
// without a home is `Send`.
unsafe impl Send for Ready {}

static WAKER: RawWakerVTable = RawWakerVTable::new(
    |data| {
        // SAFETY: `WAKER` comes with a reference, so the memory stays.
        unsafe { header_of(data).as_ref() }.state.acquire();
        RawWaker::new(data, &WAKER)
    },
    // SAFETY: the caller gives up its waker, and so the reference.
    |data| wake(Reference(unsafe { header_of(data) })),
    |data| {
        // SAFETY: as above. This reference is the caller's, and not given back.
        let reference = ManuallyDrop::new(Reference(unsafe { header_of(data) }));
        if reference.header().state.wake() {
            reference.header().state.acquire();
            operation::schedule(Ready(reference.0));
        }
    },
    // SAFETY: the caller gives up its waker, and so the reference.
    |data| drop(Reference(unsafe { header_of(data) })),
);

/// # Safety
/// `data` must be that of a waker with the vtable `WAKER`.
unsafe fn header_of(data: *const ()) -> NonNull<Header> {
    // SAFETY: such a waker has the address of a header.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

fn wake(reference: Reference) {
    if reference.header().state.wake() {
        operation::schedule(reference.into_ready());
    }
}
