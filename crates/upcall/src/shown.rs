//! What one thread writes as it goes on, and others may look at: for snapshots and reports.
//!
//! Each is one word, written and read whole; two words that belong together may be seen of two moments.

use std::mem::transmute;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

use crate::function::Function;

/// A pointer, as a `Cell` holds it for the one that writes.
pub(crate) struct Shown<T>(AtomicPtr<T>);

impl<T> Shown<T> {
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

/// A function, or none.
pub(crate) struct ShownFunction(Shown<()>);

impl ShownFunction {
    pub const fn none() -> Self {
        Self(Shown::null())
    }

    #[inline(always)]
    pub fn get(&self) -> Option<Function> {
        // SAFETY: a `Function` is a function pointer, so null and what `set` stored are `Option`s of one.
        unsafe { transmute::<*const (), Option<Function>>(self.0.get()) }
    }

    #[inline(always)]
    pub fn set(&self, function: Option<Function>) {
        // SAFETY: function pointers are pointers here, and `None` is null.
        self.0.set(unsafe { transmute::<Option<Function>, *const ()>(function) });
    }
}

/// What a fiber or a thread waits for.
pub(crate) struct Waits {
    at: Shown<Location<'static>>,
    future: ShownFunction,
}

impl Waits {
    pub const fn none() -> Self {
        Self { at: Shown::null(), future: ShownFunction::none() }
    }

    /// Where the wait is, if there is one.
    #[inline(always)]
    pub fn at(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or what `begin` was given.
        unsafe { self.at.get().as_ref() }
    }

    /// Where the wait is, and the type of its future.
    pub fn get(&self) -> Option<(&'static Location<'static>, &'static str)> {
        Some((self.at()?, self.future.get()?.name()))
    }

    #[inline(always)]
    pub fn begin(&self, at: &'static Location<'static>, future: Function) {
        self.future.set(Some(future));
        self.at.set(at);
    }

    pub fn set(&self, other: &Waits) {
        self.future.set(other.future.get());
        self.at.set(other.at.get());
    }

    pub fn copy(&self) -> Waits {
        let copy = Waits::none();
        copy.set(self);
        copy
    }

    #[inline(always)]
    pub fn end(&self) {
        self.at.set(ptr::null());
    }
}
