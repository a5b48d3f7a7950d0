//! A closure and the place of its result, for code that is compiled once and knows the type of neither.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};

use super::foreign::refusing;
use crate::function::Function;
use crate::spans::{Plain, UpcallBody, What};

/// What a crossing runs: once or never. May unwind.
#[derive(Clone, Copy)]
pub(super) struct Body {
    slot: *mut (),
    run: unsafe fn(*mut ()),
    pub function: Function,
}

impl Body {
    /// # Safety
    /// Called at most once, while the [`Slot`] that it came from is where it was.
    #[inline(always)]
    pub unsafe fn run(self) {
        // SAFETY: the caller's promise; `run` and `slot` belong together.
        unsafe { (self.run)(self.slot) }
    }
}

/// The closure before it ran, the result after.
pub(super) struct Slot<F, R, W = Plain> {
    f: ManuallyDrop<F>,
    result: MaybeUninit<R>,
    what: PhantomData<fn() -> W>,
}

impl<F, R> Slot<F, R> {
    #[inline(always)]
    pub fn new(f: F) -> Self {
        Self::of_any(f)
    }
}

impl<F, R> Slot<F, R, UpcallBody> {
    /// For the code of an upcall.
    #[inline(always)]
    pub fn of_upcall(f: F) -> Self {
        Self::of_any(f)
    }
}

impl<F, R, W> Slot<F, R, W> {
    #[inline(always)]
    fn of_any(f: F) -> Self {
        Self { f: ManuallyDrop::new(f), result: MaybeUninit::uninit(), what: PhantomData }
    }
}

impl<R, F: FnOnce() -> R, W: What> Slot<F, R, W> {
    /// The slot, seen without its types.
    #[inline(always)]
    pub fn body(&mut self) -> Body {
        unsafe fn run<R, F: FnOnce() -> R, W: What>(slot: *mut ()) {
            // SAFETY: `body` made the pointer from a slot that is still there, and this is the only time.
            unsafe { (*slot.cast::<Slot<F, R, W>>()).run() }
        }
        Body { slot: std::ptr::from_mut(self).cast(), run: run::<R, F, W>, function: Function::of::<F>() }
    }

    /// # Safety
    /// Called at most once.
    #[inline]
    pub unsafe fn run(&mut self) {
        // SAFETY: the caller's promise: the closure has not been taken.
        let f = unsafe { ManuallyDrop::take(&mut self.f) };
        self.result.write(W::run(Function::of::<F>(), || refusing(f)));
    }

    /// # Safety
    /// The body ran to its end.
    #[inline(always)]
    pub unsafe fn result(self) -> R {
        // SAFETY: the caller's promise.
        unsafe { self.result.assume_init() }
    }

    /// # Safety
    /// The body never ran.
    pub unsafe fn drop_unrun(mut self) {
        // SAFETY: the caller's promise: the closure is there, and `self` goes.
        unsafe { ManuallyDrop::drop(&mut self.f) };
    }
}
