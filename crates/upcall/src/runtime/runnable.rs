//! A fiber or an operation ready to run, and its data for executors.

use std::mem::{ManuallyDrop, forget};
use std::panic::Location;
use std::ptr::{self, NonNull};

use super::operation_memory::{Header, Ready};
use super::queue::Queue;
use crate::process::fork;
use crate::sync::Linked;
use crate::sync::atomic::Ordering::{Acquire, Relaxed};
use crate::sync::atomic::{AtomicPtr, AtomicU32};

/// A fiber ready to run, as async-task hands it over.
pub(super) type ReadyFiber = async_task::Runnable<Meta>;

/// A fiber or an operation ready to run: the pointer of a [`ReadyFiber`], or that of a [`Ready`]
/// with the bit `OPERATION`. If it is dropped, so is the fiber or the operation.
pub(super) struct Runnable(NonNull<()>);

/// Both kinds of pointers are to memory with words in it, so the lowest bit is free.
const OPERATION: usize = 1;

/// A borrowed `Runnable`, told apart.
enum Kind {
    Fiber(ManuallyDrop<ReadyFiber>),
    Operation(ManuallyDrop<Ready>),
}

// SAFETY: both kinds are `Send`.
unsafe impl Send for Runnable {}

impl From<ReadyFiber> for Runnable {
    #[inline]
    fn from(fiber: ReadyFiber) -> Self {
        Self(fiber.into_raw())
    }
}

impl From<Ready> for Runnable {
    #[inline]
    fn from(operation: Ready) -> Self {
        Self(operation.into_raw().cast().map_addr(|address| address | OPERATION))
    }
}

impl Runnable {
    /// # Safety
    /// Only one result is dropped or used up, and `self` is not dropped then.
    #[inline(always)]
    unsafe fn kind(&self) -> Kind {
        if self.0.addr().get() & OPERATION == 0 {
            // SAFETY: such a pointer comes from `ReadyFiber::into_raw`. The caller guarantees that
            // it is converted back once.
            Kind::Fiber(ManuallyDrop::new(unsafe { ReadyFiber::from_raw(self.0) }))
        } else {
            let raw: NonNull<Header> =
                // SAFETY: the address without the bit is that of a header, and not 0.
                unsafe { NonNull::new_unchecked(self.0.as_ptr().map_addr(|address| address & !OPERATION).cast()) };
            // SAFETY: such a pointer comes from `Ready::into_raw`. The caller guarantees the rest.
            Kind::Operation(ManuallyDrop::new(unsafe { Ready::from_raw(raw) }))
        }
    }

    #[inline(always)]
    pub fn run(self) {
        // SAFETY: the result is used up below, and `self` forgotten.
        let kind = unsafe { self.kind() };
        forget(self);
        match kind {
            Kind::Fiber(fiber) => _ = ManuallyDrop::into_inner(fiber).run(),
            Kind::Operation(operation) => ManuallyDrop::into_inner(operation).run(),
        }
    }

    #[inline(always)]
    pub fn metadata(&self) -> &Meta {
        // SAFETY: the result is borrowed. `self` keeps the metadata.
        unsafe {
            match self.kind() {
                Kind::Fiber(fiber) => &*ptr::from_ref(fiber.metadata()),
                Kind::Operation(operation) => &*ptr::from_ref(&operation.header().meta),
            }
        }
    }

    /// The operation, if it is one.
    pub fn into_operation(self) -> Option<Ready> {
        // SAFETY: only an operation is used up, and `self` forgotten.
        let Kind::Operation(operation) = (unsafe { self.kind() }) else { return None };
        forget(self);
        Some(ManuallyDrop::into_inner(operation))
    }
}

impl Drop for Runnable {
    fn drop(&mut self) {
        // SAFETY: the result is dropped below, once.
        match unsafe { self.kind() } {
            Kind::Fiber(fiber) => drop(ManuallyDrop::into_inner(fiber)),
            Kind::Operation(operation) => drop(ManuallyDrop::into_inner(operation)),
        }
    }
}

/// Data of a fiber or an operation for code outside.
pub(super) struct Meta {
    /// The queue of the home. Null until a worker begins it.
    pub(super) home: AtomicPtr<Queue>,
    pub spawned_at: &'static Location<'static>,
    /// The epoch of the spawning process: its low bits, to save memory.
    epoch: u32,
    /// The place of an operation in the home's list, counted from 1; 0 for none. For its poller.
    pub(super) place: AtomicU32,
    /// The next in the `remote` of its queue.
    next: AtomicPtr<()>,
}

impl Meta {
    #[inline]
    pub fn new(home: Option<&'static Queue>, spawned_at: &'static Location<'static>) -> Self {
        let home = AtomicPtr::new(home.map_or(ptr::null_mut(), |queue| ptr::from_ref(queue).cast_mut()));
        let (place, next) = (AtomicU32::new(0), AtomicPtr::new(ptr::null_mut()));
        Self { home, spawned_at, epoch: fork::epoch() as u32, place, next }
    }

    /// Whether the fiber's thread exists only in an ancestor of this process.
    pub fn is_lost(&self) -> bool {
        let epoch = fork::epoch() as u32;
        self.home().map_or(self.epoch != epoch, |home| home.lost.load(Relaxed))
    }

    pub fn home(&self) -> Option<&'static Queue> {
        // SAFETY: null, or a queue, and queues are never freed.
        unsafe { self.home.load(Acquire).as_ref() }
    }
}

impl Linked for Runnable {
    fn into_raw(self) -> NonNull<()> {
        ManuallyDrop::new(self).0
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        Self(raw)
    }

    unsafe fn link_of<'a>(raw: NonNull<()>) -> &'a AtomicPtr<()> {
        // SAFETY: the caller guarantees that `raw` came from `into_raw` and is not converted back
        // yet. This copy is never dropped.
        let runnable = ManuallyDrop::new(Self(raw));
        // SAFETY: the link is in the memory of the fiber or the operation, which `raw` keeps.
        unsafe { &*ptr::from_ref(&runnable.metadata().next) }
    }
}
