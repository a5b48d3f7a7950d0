//! A closure and the place of its result, for code that is compiled once and knows the type of neither.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};

use super::foreign::refusing;
use crate::function::Function;
use crate::spans::{Plain, UpcallBody, What};

/// What a crossing runs: once or never.
pub(super) struct Body<'slot> {
    slot: *mut (),
    run: unsafe fn(*mut ()),
    pub function: Function,
    borrowed: PhantomData<&'slot mut ()>,
}

impl Body<'_> {
    /// May unwind.
    #[inline(always)]
    pub fn run(self) {
        // SAFETY: `Slot::body` put the two together. The slot is where it was, since it is borrowed, and runs this once: it has one body, which is gone now.
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
    ///
    /// # Safety
    /// Called at most once, and [`run`](Self::run) not.
    #[inline(always)]
    pub unsafe fn body(&mut self) -> Body<'_> {
        /// # Safety
        /// `slot` is one of these types, and has not run.
        unsafe fn run<R, F: FnOnce() -> R, W: What>(slot: *mut ()) {
            // SAFETY: the caller's promise.
            unsafe { (*slot.cast::<Slot<F, R, W>>()).run() }
        }
        let slot = std::ptr::from_mut(self).cast();
        Body { slot, run: run::<R, F, W>, function: Function::of::<F>(), borrowed: PhantomData }
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
    /// The slot ran, and did not unwind.
    #[inline(always)]
    pub unsafe fn result(self) -> R {
        // SAFETY: the last that `run` does is to write the result.
        unsafe { self.result.assume_init() }
    }

    /// # Safety
    /// The slot did not run.
    pub unsafe fn drop_unrun(mut self) {
        // SAFETY: the caller's promise: the closure is there, and `self` goes.
        unsafe { ManuallyDrop::drop(&mut self.f) };
    }
}
