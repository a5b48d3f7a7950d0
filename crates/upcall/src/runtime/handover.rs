//! How fibers get from thread to thread: three small protocols, which `model.rs` has loom check.

use std::ptr::{self, NonNull};
use std::sync::PoisonError;

use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::atomic::{AtomicBool, AtomicPtr};
use crate::sync::{Mutex, MutexGuard, sequential};
use crate::thread::Parker;

/// A place for one thing, which its owner puts there and anybody may take.
pub(super) struct Kept(AtomicPtr<()>);

impl Kept {
    pub fn nothing() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts `new` there, and takes what was there. Sequentially consistent with [`Attention`]'s flag: who puts something there and
    /// then finds the watcher awake has been seen by it before it sleeps.
    #[inline]
    pub fn replace(&self, new: NonNull<()>) -> Option<NonNull<()>> {
        NonNull::new(self.0.swap(new.as_ptr(), SeqCst))
    }

    /// Takes what is there.
    #[inline]
    pub fn take(&self) -> Option<NonNull<()>> {
        if self.is_nothing() { None } else { NonNull::new(self.0.swap(ptr::null_mut(), SeqCst)) }
    }

    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.0.load(SeqCst).is_null()
    }
}

/// A list that anybody adds to, and its owner empties. To be told of something new is another matter: who adds unparks the owner.
pub(super) struct Remote<T> {
    list: Mutex<Vec<T>>,
    /// Whether there is something in `list`; changed under its lock. Read without, it may be late.
    has_some: AtomicBool,
}

impl<T> Remote<T> {
    pub fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), has_some: AtomicBool::new(false) }
    }

    pub fn push(&self, item: T) {
        let mut list = self.lock();
        list.push(item);
        self.has_some.store(true, Relaxed);
    }

    /// Hands over what there is, if that is known already.
    #[inline]
    pub fn fetch(&self, into: &mut impl Extend<T>) {
        if self.may_have_some() {
            let mut list = self.lock();
            self.has_some.store(false, Relaxed);
            into.extend(list.drain(..));
        }
    }

    #[inline]
    pub fn may_have_some(&self) -> bool {
        self.has_some.load(Relaxed)
    }

    /// Whether there is something: certainly, of all that was pushed before its pusher did what the caller knows of.
    pub fn has_some(&self) -> bool {
        !self.lock().is_empty()
    }

    pub fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // Nothing panics half-way through a change.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attention of a thread that works while somebody wants it to, and sleeps otherwise.
pub(super) struct Attention {
    awake: AtomicBool,
    parker: &'static Parker,
}

impl Attention {
    /// That of a thread which begins awake.
    pub fn new(parker: &'static Parker) -> Self {
        Self { awake: AtomicBool::new(true), parker }
    }

    /// Has the thread look at what the caller just did.
    #[inline]
    pub fn call(&self) {
        sequential();
        if !self.awake.load(SeqCst) && !self.awake.swap(true, SeqCst) {
            self.parker.unpark();
        }
    }

    /// Sleeps, on that thread, until somebody calls; not at all if something is `wanted`, which was done before a call that found it awake.
    pub fn rest(&self, wanted: impl FnOnce() -> bool) {
        self.awake.store(false, SeqCst);
        sequential();
        if !wanted() || self.awake.swap(true, SeqCst) {
            self.parker.park(None);
            self.awake.store(true, SeqCst);
        }
    }

    /// Wakes it whether it is awake or not.
    pub fn end(&self) {
        self.parker.unpark();
    }
}
