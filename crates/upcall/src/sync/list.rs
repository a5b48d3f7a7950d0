//! A list from many threads to one, without a lock, checked by loom in the models of its users.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use super::atomic::AtomicPtr;
use super::atomic::Ordering::{Relaxed, SeqCst};
use super::sequential;

/// An item with a link of its own, for use in a list.
pub(crate) trait Linked: Sized {
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
/// Adding does not wake the owner: whoever adds an item does so. The list has no
/// lock and needs no memory. So signal handlers may add to it, whatever they interrupt.
pub(crate) struct Remote<T> {
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
