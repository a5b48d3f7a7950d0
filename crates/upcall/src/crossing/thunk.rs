//! A closure and the place of its result, for code compiled once for all types of both.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};

use super::foreign_unwind::abort_on_foreign_unwind;
use crate::coroutine::spans::{NoSpan, SpanKind, UpcallSpan};
use crate::function::Function;

/// The code that a crossing runs, without its types. It runs at most once.
pub(super) struct Body<'thunk> {
    thunk: *mut (),
    run: unsafe fn(*mut ()),
    pub function: Function,
    borrowed: PhantomData<&'thunk mut ()>,
}

impl Body<'_> {
    /// Runs the code. May unwind.
    #[inline(always)]
    pub fn run(self) {
        // SAFETY: `Thunk::body` paired `run` with a thunk of its types. The thunk is borrowed, so
        // it has not moved. It has this one body, and `self` is consumed, so it has not run.
        unsafe { (self.run)(self.thunk) }
    }
}

/// A closure before its run, its result after.
pub(super) struct Thunk<F, R, W = NoSpan> {
    f: ManuallyDrop<F>,
    result: MaybeUninit<R>,
    what: PhantomData<fn() -> W>,
}

impl<F, R> Thunk<F, R> {
    #[inline(always)]
    pub fn new(f: F) -> Self {
        Self::of_any(f)
    }
}

impl<F, R> Thunk<F, R, UpcallSpan> {
    /// A thunk for the code of an upcall: it runs in a span.
    #[inline(always)]
    pub fn of_upcall(f: F) -> Self {
        Self::of_any(f)
    }
}

impl<F, R, W> Thunk<F, R, W> {
    #[inline(always)]
    fn of_any(f: F) -> Self {
        Self { f: ManuallyDrop::new(f), result: MaybeUninit::uninit(), what: PhantomData }
    }
}

impl<R, F: FnOnce() -> R, W: SpanKind> Thunk<F, R, W> {
    /// The thunk without its types.
    ///
    /// # Safety
    /// Call this once at most, and not together with [`run`](Self::run).
    #[inline(always)]
    pub unsafe fn body(&mut self) -> Body<'_> {
        /// # Safety
        /// `thunk` points to a thunk of these types that has not run.
        unsafe fn run<R, F: FnOnce() -> R, W: SpanKind>(thunk: *mut ()) {
            // SAFETY: the caller guarantees the type, and that the thunk has not run.
            unsafe { (*thunk.cast::<Thunk<F, R, W>>()).run() }
        }
        let thunk = std::ptr::from_mut(self).cast();
        Body { thunk, run: run::<R, F, W>, function: Function::of::<F>(), borrowed: PhantomData }
    }

    /// Runs the closure, and keeps its result.
    ///
    /// # Safety
    /// Call this once at most.
    #[inline]
    pub unsafe fn run(&mut self) {
        // SAFETY: the caller guarantees a single call, so the closure is still there.
        let f = unsafe { ManuallyDrop::take(&mut self.f) };
        self.result.write(W::run(Function::of::<F>(), || abort_on_foreign_unwind(f)));
    }

    /// The result of the run.
    ///
    /// # Safety
    /// The thunk ran, and did not unwind.
    #[inline(always)]
    pub unsafe fn result(self) -> R {
        // SAFETY: the caller guarantees a run to its end, and `run` writes the result last.
        unsafe { self.result.assume_init() }
    }

    /// Drops the closure without running it.
    ///
    /// # Safety
    /// The thunk did not run.
    pub unsafe fn drop_unrun(mut self) {
        // SAFETY: the caller guarantees that the thunk did not run, so the closure is there. `self`
        // is consumed, so nobody uses it again.
        unsafe { ManuallyDrop::drop(&mut self.f) };
    }
}
