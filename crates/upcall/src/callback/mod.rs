//! Rust closures that C calls: a function pointer, and a `void *` that C passes to it first or last.
//!
//! | the closure | made by | called |
//! |---|---|---|
//! | `FnMut + Send` | [`new`] | from any thread, one call at a time |
//! | `Fn + Send + Sync` | [`shared`] | from any threads, by several at once |
//! | `FnOnce + Send` | [`once`] | from any thread, once |
//! | `FnMut`, may borrow | [`scope`] | while the scope is open, on its thread, one call at a time |
//! | `Fn + Sync`, may borrow | [`scope_shared`] | while the scope is open, from any threads, by several at once |
//!
//! Each call is an upcall, as by [`enter`](crate::enter). What C gets after a panic, and when the call cannot be made, is said by a second closure,
//! which captures nothing; the reason is what `upcall_last_panic` tells, and a panic goes on at the [`downcall`](crate::downcall) around C.
//!
//! The `void *` is no pointer but a number, as a [`Handle`](crate::Handle) is. When C calls after the closure is gone, or with a `void *` that is null,
//! another callback's or anything else, that is such a call that cannot be made, and never undefined behaviour. So is a call of a closure that changes
//! what it has, while it runs. A closure that is destroyed while it runs stays until it has returned.
//!
//! The arguments, up to eight, and the result are C's types by value. They are named in the closure; then the function pointer has exactly the type that
//! bindings declare:
//!
//! ```
//! use std::ffi::{c_int, c_void};
//! use upcall::{callback, downcall};
//!
//! fn sort_by<T>(items: &mut [T], mut less: impl FnMut(&T, &T) -> bool) {
//!     let compare = |a: *const c_void, b: *const c_void| -> c_int {
//!         // SAFETY: qsort_r passes elements of the array below.
//!         let (a, b) = unsafe { (&*a.cast::<T>(), &*b.cast::<T>()) };
//!         c_int::from(less(b, a)) - c_int::from(less(a, b))
//!     };
//!     callback::scope(compare, || 0, |compare| {
//!         let (base, number) = (items.as_mut_ptr().cast(), items.len());
//!         // SAFETY: the array is valid for the length given.
//!         downcall(|| unsafe {
//!             libc::qsort_r(base, number, size_of::<T>(), Some(compare.data_last()), compare.data())
//!         });
//!     });
//! }
//!
//! let mut comparisons = 0;
//! let mut words = ["sort", "these", "by", "length"];
//! sort_by(&mut words, |a, b| {
//!     comparisons += 1;
//!     a.len() < b.len()
//! });
//! assert_eq!(words, ["by", "sort", "these", "length"]);
//! assert!(comparisons > 0);
//! ```
//!
//! A C library that keeps the closure, and calls back when it needs it no more:
//!
//! ```
//! use std::ffi::{c_int, c_void};
//! use upcall::callback;
//! # mod library {
//! #     use std::ffi::{c_int, c_void};
//! #     type Calls = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
//! #     type Destroys = unsafe extern "C" fn(*mut c_void);
//! #     static SET: std::sync::Mutex<Option<(Calls, usize, Destroys)>> = std::sync::Mutex::new(None);
//! #     pub unsafe fn on_event(f: Option<Calls>, data: *mut c_void, destroy: Option<Destroys>) {
//! #         let new = f.map(|f| (f, data as usize, destroy.unwrap()));
//! #         let old = std::mem::replace(&mut *SET.lock().unwrap(), new);
//! #         if let Some((_, data, destroy)) = old { unsafe { destroy(data as *mut c_void) } }
//! #     }
//! #     pub unsafe fn raise(event: c_int) -> c_int {
//! #         let (f, data, _) = SET.lock().unwrap().unwrap();
//! #         unsafe { f(data as *mut c_void, event) }
//! #     }
//! # }
//!
//! let mut events = Vec::new();
//! let on_event = move |event: c_int| -> c_int {
//!     assert!(event >= 0, "no such event");
//!     events.push(event);
//!     events.len() as c_int
//! };
//! let on_event = callback::new(on_event, || -1);
//! let (function, destroy) = (on_event.data_first(), on_event.destroy());
//! // SAFETY: the library calls `function` as this type says. It has the closure from now on, and destroys it.
//! unsafe { library::on_event(Some(function), on_event.into_data(), Some(destroy)) };
//!
//! // SAFETY: as above.
//! unsafe {
//!     assert_eq!(library::raise(7), 1);
//!     assert_eq!(library::raise(-7), -1); // panics
//!     assert_eq!(library::raise(8), 2);
//!     library::on_event(None, std::ptr::null_mut(), None); // drops `events`
//! }
//! ```

mod arguments;
mod kinds;
mod scope;

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::mem::forget;
use std::ptr::NonNull;

use crate::crossing::checked;
use crate::handle::table;
use kinds::{Kind, Refused};

pub use arguments::{Arguments, CallMut, CallOnce, CallShared};
pub use kinds::{Call, Kept, Mutable, Once, Shared};
pub use scope::{Borrowed, BorrowedMut, scope, scope_shared};

/// A closure of the kind `C` as C sees it: a function with arguments `A` that returns `R`, what `E` gives in the place of that, and a `void *`.
///
/// Dropping it drops the closure, unless that was given to C by [`into_data`](Self::into_data).
pub struct Callback<C: Kind, E, A, R> {
    /// What C has for a pointer.
    data: usize,
    closure: PhantomData<C>,
    otherwise: PhantomData<E>,
    signature: PhantomData<fn(A) -> R>,
}

/// A closure that changes what it has.
///
/// When C calls it while it runs, from another thread or inside itself, that call cannot be made, and gets what `otherwise` returns.
pub fn new<F, E, A, R>(f: F, otherwise: E) -> Callback<Mutable<F>, E, A, R>
where
    F: CallMut<A, R> + Send + 'static,
    E: Fn() -> R + Copy,
    A: Arguments<R>,
{
    Callback::of(Mutable(f), otherwise)
}

/// A closure that several threads may be in at once.
pub fn shared<F, E, A, R>(f: F, otherwise: E) -> Callback<Shared<F>, E, A, R>
where
    F: CallShared<A, R> + Send + Sync + 'static,
    E: Fn() -> R + Copy,
    A: Arguments<R>,
{
    Callback::of(Shared(f), otherwise)
}

/// A closure that is called once. The call frees it; a library that destroys it then does no harm.
///
/// A second call cannot be made, and gets what `otherwise` returns.
///
/// ```
/// use std::ffi::c_void;
/// use upcall::callback;
///
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let body = callback::once(move || -> *mut c_void { sender.send("from a thread of C's").unwrap(); std::ptr::null_mut() }, || std::ptr::null_mut());
/// // For pthread_create(&thread, NULL, function, data):
/// let (function, data) = (body.data_first(), body.into_data());
/// # unsafe { function(data) };
/// assert_eq!(receiver.recv(), Ok("from a thread of C's"));
/// ```
pub fn once<F, E, A, R>(f: F, otherwise: E) -> Callback<Once<F>, E, A, R>
where
    F: CallOnce<A, R> + Send + 'static,
    E: Fn() -> R + Copy,
    A: Arguments<R>,
{
    Callback::of(Once(f), otherwise)
}

impl<C: Call<A, R>, E: Fn() -> R + Copy, A: Arguments<R>, R> Callback<C, E, A, R> {
    fn of(closure: C, _: E) -> Self {
        const {
            assert!(
                size_of::<E>() == 0,
                "what C gets otherwise is said by a closure that captures nothing, as || -1"
            )
        };
        Self {
            data: table::insert(closure),
            closure: PhantomData,
            otherwise: PhantomData,
            signature: PhantomData,
        }
    }

    /// The function, for C that passes the `void *` first.
    pub fn data_first(&self) -> A::DataFirst {
        A::data_first::<C, E>()
    }

    /// The function, for C that passes the `void *` last.
    pub fn data_last(&self) -> A::DataLast {
        A::data_last::<C, E>()
    }
}

impl<C: Kind, E, A, R> Callback<C, E, A, R> {
    /// The `void *`. The closure stays this value's.
    pub fn data(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.data)
    }
}

impl<C: Kept, E, A, R> Callback<C, E, A, R> {
    /// The `void *`. The closure is C's from now on: until C calls [`destroy`](Self::destroy) with it, or for ever.
    pub fn into_data(self) -> *mut c_void {
        let data = self.data();
        forget(self);
        data
    }

    /// A function that drops the closure whose `void *` it gets, in an upcall; for C libraries that ask for one. If the closure runs, it is dropped when it has
    /// returned. When there is none, as when C calls twice, the function does nothing but say so to `upcall_last_panic`.
    pub fn destroy(&self) -> unsafe extern "C" fn(*mut c_void) {
        unsafe extern "C" fn destroy<C: Kept>(data: *mut c_void) {
            checked(|| C::remove(data.addr()).map_err(|error| Refused::from(error).message(C::name())));
        }
        destroy::<C>
    }
}

impl<C: Kind, E, A, R> Drop for Callback<C, E, A, R> {
    fn drop(&mut self) {
        // C may have destroyed it.
        let _ = C::remove(self.data);
    }
}

impl<C: Kind, E, A, R> fmt::Debug for Callback<C, E, A, R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Callback({}, {:#x})", C::name(), self.data)
    }
}

/// A call that C makes.
#[inline(always)]
fn run<C: Call<A, R>, E: Fn() -> R + Copy, A, R>(data: *mut c_void, arguments: A) -> R {
    match checked(|| C::call(data.addr(), arguments).map_err(|refused| refused.message(C::name()))) {
        Some(value) => value,
        None => {
            // SAFETY: `Callback::of` was given one that can be copied, and it has no size.
            let otherwise = unsafe { NonNull::<E>::dangling().as_ref() };
            otherwise()
        }
    }
}
