//! How fibers get from thread to thread: two small protocols beside the
//! [list of a thread](crate::sync::Remote), checked by loom in `model.rs`.

use std::ptr::{self, NonNull};
use std::time::Instant;

use crate::sync::atomic::Ordering::SeqCst;
use crate::sync::atomic::{AtomicBool, AtomicPtr};
use crate::sync::sequential;
use crate::thread::Parker;

/// A place for one item: its owner puts an item there, and anybody may take it.
pub(super) struct Mailbox(AtomicPtr<()>);

impl Mailbox {
    pub fn nothing() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts `new` there, and takes the previous item.
    ///
    /// Sequentially consistent with the flag of [`Attention`]: if the owner puts an item there and
    /// then finds the watcher awake, the watcher sees the item before it sleeps.
    #[inline]
    pub fn replace(&self, new: NonNull<()>) -> Option<NonNull<()>> {
        NonNull::new(self.0.swap(new.as_ptr(), SeqCst))
    }

    /// Takes the item, if there is one.
    #[inline]
    pub fn take(&self) -> Option<NonNull<()>> {
        if self.is_nothing() { None } else { NonNull::new(self.0.swap(ptr::null_mut(), SeqCst)) }
    }

    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.0.load(SeqCst).is_null()
    }
}

/// The attention of a thread that works on call, and sleeps otherwise.
pub(super) struct Attention {
    awake: AtomicBool,
    parker: &'static Parker,
}

impl Attention {
    /// The attention of a thread that begins awake.
    pub fn new(parker: &'static Parker) -> Self {
        Self { awake: AtomicBool::new(true), parker }
    }

    /// Has the thread look at what the caller just did.
    #[inline]
    pub fn call(&self) {
        sequential();
        if !self.awake.load(SeqCst) && !self.awake.swap(true, SeqCst) {
            self.parker.unpark_at_once();
        }
    }

    /// Sleeps until a call, or until `deadline`. Only on the attention's own thread.
    ///
    /// Does not sleep at all if `wanted` returns `true`. This closure must see whatever was done
    /// before a call that found the thread awake.
    pub fn rest(&self, deadline: Option<Instant>, wanted: impl FnOnce() -> bool) {
        self.awake.store(false, SeqCst);
        sequential();
        if !wanted() || self.awake.swap(true, SeqCst) {
            self.parker.park(deadline);
            self.awake.store(true, SeqCst);
        }
    }

    /// Wakes the thread, even if it is awake.
    pub fn end(&self) {
        self.parker.unpark_at_once();
    }
}
