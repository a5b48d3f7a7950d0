//! How fibers get from thread to thread: three small protocols, checked by loom in `model.rs`.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Instant;

use crate::sync::atomic::Ordering::{Relaxed, SeqCst};
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

/// An item with a link of its own, for use in a list.
pub(super) trait Linked: Sized {
    fn into_raw(self) -> NonNull<()>;
    /// # Safety
    /// `raw` must come from [`into_raw`](Self::into_raw), and be converted back only once.
    unsafe fn from_raw(raw: NonNull<()>) -> Self;
    /// The link of an item: it leads to the next item in the list.
    ///
    /// # Safety
    /// `raw` must come from `into_raw`, and must not be converted back while the result is used.
    unsafe fn link_of<'a>(raw: NonNull<()>) -> &'a AtomicPtr<()>;
}

/// A list: anybody may add an item, and its owner takes all items.
///
/// Adding does not wake the owner: whoever adds an item also unparks the owner. The list has no
/// lock and needs no memory. So signal handlers may add to it, whatever they interrupt.
pub(super) struct Remote<T> {
    /// The item added last, linked to those added before; null if the list is empty.
    last: AtomicPtr<()>,
    of: PhantomData<fn(T) -> T>,
}

impl<T: Linked> Remote<T> {
    pub fn new() -> Self {
        Self { last: AtomicPtr::new(ptr::null_mut()), of: PhantomData }
    }

    pub fn push(&self, item: T) {
        let raw = item.into_raw();
        // SAFETY: `raw` just came from `into_raw`, and is this call's own until the exchange
        // succeeds.
        let link = unsafe { T::link_of(raw) };
        let mut before = self.last.load(Relaxed);
        loop {
            link.store(before, Relaxed);
            // The owner takes all items at once. So it does no harm if `before` has been taken and
            // added again meanwhile.
            match self.last.compare_exchange_weak(before, raw.as_ptr(), SeqCst, Relaxed) {
                Ok(_) => break,
                Err(now) => before = now,
            }
        }
        sequential();
    }

    /// Hands over the items known to this thread, in the order of their addition.
    #[inline]
    pub fn fetch(&self, into: &mut impl Extend<T>) {
        if self.may_have_some() {
            self.fetch_all(into);
        }
    }

    #[inline(never)]
    fn fetch_all(&self, into: &mut impl Extend<T>) {
        let mut newest = NonNull::new(self.last.swap(ptr::null_mut(), SeqCst));
        let mut oldest = None;
        // SAFETY: the swap made the owner's thread the only one with these items. Each came from
        // `into_raw`, and is converted back once, below.
        unsafe {
            while let Some(raw) = newest {
                let before = oldest.map_or(ptr::null_mut(), NonNull::as_ptr);
                newest = NonNull::new(T::link_of(raw).load(Relaxed));
                T::link_of(raw).store(before, Relaxed);
                oldest = Some(raw);
            }
            into.extend(std::iter::from_fn(|| {
                let raw = oldest?;
                oldest = NonNull::new(T::link_of(raw).load(Relaxed));
                Some(T::from_raw(raw))
            }));
        }
    }

    #[inline]
    pub fn may_have_some(&self) -> bool {
        !self.last.load(Relaxed).is_null()
    }

    /// Whether there is an item. Certain for items whose adder then did something known to the
    /// caller.
    pub fn has_some(&self) -> bool {
        sequential();
        !self.last.load(SeqCst).is_null()
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
