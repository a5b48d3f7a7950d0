//! A fiber ready to run, as async-task hands it over, and its data for executors.

use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::{self, NonNull};

use super::queue::Queue;
use crate::process::fork;
use crate::sync::Linked;
use crate::sync::atomic::AtomicPtr;
use crate::sync::atomic::Ordering::{Acquire, Relaxed};

/// A fiber ready to run, as its executor handles it.
pub(super) type Runnable = async_task::Runnable<Meta>;

/// A fiber's data for code outside the fiber.
pub(super) struct Meta {
    /// The fiber's queue. Null until a worker begins the fiber.
    pub(super) home: AtomicPtr<Queue>,
    pub spawned_at: &'static Location<'static>,
    /// The epoch of the spawning process.
    epoch: usize,
    /// The next fiber in its queue's `remote`.
    next: AtomicPtr<()>,
}

impl Meta {
    pub fn new(home: Option<&'static Queue>, spawned_at: &'static Location<'static>) -> Self {
        let home = AtomicPtr::new(home.map_or(ptr::null_mut(), |queue| ptr::from_ref(queue).cast_mut()));
        Self { home, spawned_at, epoch: fork::epoch(), next: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether the fiber's thread exists only in an ancestor of this process.
    pub fn is_lost(&self) -> bool {
        let epoch = fork::epoch();
        self.home().map_or(self.epoch != epoch, |home| home.lost.load(Relaxed))
    }

    pub fn home(&self) -> Option<&'static Queue> {
        // SAFETY: null, or a queue, and queues are never freed.
        unsafe { self.home.load(Acquire).as_ref() }
    }
}

impl Linked for Runnable {
    fn into_raw(self) -> NonNull<()> {
        self.into_raw()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller guarantees that `raw` came from `into_raw` and is converted back once.
        unsafe { Runnable::from_raw(raw) }
    }

    unsafe fn link_of<'a>(raw: NonNull<()>) -> &'a AtomicPtr<()> {
        // SAFETY: the caller guarantees that `raw` came from `into_raw` and is not converted back
        // yet. This copy is never dropped.
        let runnable = ManuallyDrop::new(unsafe { Runnable::from_raw(raw) });
        // SAFETY: the link is in the task, not in the Runnable. `raw` stands for a reference to the
        // task, and so keeps it alive.
        unsafe { &*ptr::from_ref(&runnable.metadata().next) }
    }
}
