//! Noting wakers: for one poll, a waker that notes whether the poll has woken its own task.

use std::mem::ManuallyDrop;
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::sync::atomic::AtomicBool;
use crate::sync::atomic::Ordering::{Acquire, Release};

/// A waker on the poll's stack. Its clones are clones of the task's waker, and note nothing.
pub(super) struct NotingWaker<'a> {
    inner: &'a Waker,
    has_woken: AtomicBool,
}

impl<'a> NotingWaker<'a> {
    pub fn new(inner: &'a Waker) -> Self {
        Self { inner, has_woken: AtomicBool::new(false) }
    }

    /// The waker for the poll.
    ///
    /// # Safety
    /// `self` must stay where it is until the result is not used any more.
    pub unsafe fn waker(&self) -> ManuallyDrop<Waker> {
        // SAFETY: the functions below uphold the contract of `RawWaker`, while `self` is there. Any
        // thread may call them: the fields are `Sync`. A clone does not lead to `self`.
        ManuallyDrop::new(unsafe { Waker::new(std::ptr::from_ref(self).cast(), &VTABLE) })
    }

    /// Whether the task has been woken by the waker itself, so that it is polled again.
    pub fn has_woken(&self) -> bool {
        self.has_woken.load(Acquire)
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake_by_ref, wake_by_ref, |_| ());

fn clone(noting: *const ()) -> RawWaker {
    // SAFETY: `waker` made the pointer, and its caller keeps the place.
    let noting = unsafe { &*noting.cast::<NotingWaker<'_>>() };
    let clone = ManuallyDrop::new(noting.inner.clone());
    RawWaker::new(clone.data(), clone.vtable())
}

fn wake_by_ref(noting: *const ()) {
    // SAFETY: as in `clone`.
    let noting = unsafe { &*noting.cast::<NotingWaker<'_>>() };
    noting.inner.wake_by_ref();
    noting.has_woken.store(true, Release);
}
