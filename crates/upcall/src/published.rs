//! State that one thread publishes while it runs, for snapshots and reports of other threads.
//!
//! Each item is one atomic word, so a reader never sees half of it. Two related words may come from
//! different moments.

use std::mem::transmute;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use crate::function::Function;

/// A pointer, written by its owner as if in a `Cell`, and readable by other threads.
pub(crate) struct Published<T>(AtomicPtr<T>);

impl<T> Published<T> {
    pub const fn null() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline(always)]
    pub fn get(&self) -> *const T {
        self.0.load(Relaxed)
    }

    #[inline(always)]
    pub fn set(&self, value: *const T) {
        self.0.store(value.cast_mut(), Relaxed);
    }
}

/// A function, or none, in one published word.
pub(crate) struct PublishedFunction(Published<()>);

impl PublishedFunction {
    pub const fn none() -> Self {
        Self(Published::null())
    }

    #[inline(always)]
    pub fn get(&self) -> Option<Function> {
        // SAFETY: a `Function` is a transparent function pointer. So null is `None`, and any value
        // stored by `set` is an `Option<Function>`.
        unsafe { transmute::<*const (), Option<Function>>(self.0.get()) }
    }

    #[inline(always)]
    pub fn set(&self, function: Option<Function>) {
        // SAFETY: on every supported target, a function pointer has the size of a data pointer;
        // `None` is null.
        self.0.set(unsafe { transmute::<Option<Function>, *const ()>(function) });
    }
}

/// The current wait of a fiber or a thread: its place in the source, and its future.
pub(crate) struct CurrentWait {
    at: Published<Location<'static>>,
    future: PublishedFunction,
}

impl CurrentWait {
    pub const fn none() -> Self {
        Self { at: Published::null(), future: PublishedFunction::none() }
    }

    /// The place of the wait, if one is in progress.
    #[inline(always)]
    pub fn at(&self) -> Option<&'static Location<'static>> {
        // SAFETY: the pointer is null or the `&'static` reference given to `begin`.
        unsafe { self.at.get().as_ref() }
    }

    /// The place of the wait and its future, if one is in progress.
    pub fn get(&self) -> Option<(&'static Location<'static>, Function)> {
        Some((self.at()?, self.future.get()?))
    }

    #[inline(always)]
    pub fn begin(&self, at: &'static Location<'static>, future: Function) {
        self.future.set(Some(future));
        self.at.set(at);
    }

    #[inline(always)]
    pub fn end(&self) {
        self.at.set(ptr::null());
    }
}

/// One upcall, or none, as reports show it.
#[derive(Clone, Copy)]
pub(crate) struct CurrentUpcall {
    /// SP at its entry; 0 for no upcall.
    pub sp: usize,
    /// The Rust function called by C. It may still be set when there is no upcall.
    pub function: Option<Function>,
}

/// A published place for one [`CurrentUpcall`].
pub(crate) struct CurrentUpcallCell {
    sp: AtomicUsize,
    pub function: PublishedFunction,
}

impl CurrentUpcallCell {
    pub const fn new() -> Self {
        Self { sp: AtomicUsize::new(0), function: PublishedFunction::none() }
    }

    #[inline(always)]
    pub fn sp(&self) -> usize {
        self.sp.load(Relaxed)
    }

    #[inline(always)]
    pub fn set_sp(&self, sp: usize) {
        self.sp.store(sp, Relaxed);
    }

    #[inline(always)]
    pub fn get(&self) -> CurrentUpcall {
        CurrentUpcall { sp: self.sp(), function: self.function.get() }
    }

    #[inline(always)]
    pub fn set(&self, upcall: CurrentUpcall) {
        self.set_sp(upcall.sp);
        self.function.set(upcall.function);
    }
}
