//! Rust closures as C callbacks: a function pointer and a `void *`, passed by C first or last.
//!
//! | the closure | made by | called |
//! |---|---|---|
//! | `FnMut + Send` | [`new`] | from any thread, one call at a time |
//! | `Fn + Send + Sync` | [`shared`] | from any threads, by several at once |
//! | `FnOnce + Send` | [`once`] | from any thread, once |
//! | `FnMut`, may borrow | [`scope`] | while the scope is open, on its thread, one call at a time |
//! | `Fn + Sync`, may borrow | [`scope_shared`] | while the scope is open, from any threads, by several at once |
//!
//! Each call is an upcall, as by [`enter`](crate::enter). A second closure, `otherwise`, gives the
//! value for C after a panic, or if the call cannot be made. It captures nothing that has a size,
//! is borrowed, or is tied to a thread. C learns the reason from
//! [`last_message`](crate::c::last_message). A panic goes on at the [`downcall`](crate::downcall)
//! around C.
//!
//! The `void *` is a number and not a pointer, like a [`Handle`](crate::Handle). Some calls cannot
//! be made: calls after the closure is gone, calls with null or another callback's `void *` or any
//! other word, and calls of an `FnMut` while it runs. They get the value of `otherwise`, and are
//! never undefined behaviour. A closure that is destroyed while it runs stays until it has
//! returned. Making a callback panics if no number is free.
//!
//! The arguments, up to eight, and the result are C's types by value. Name the types in the
//! closure. The function pointer then has exactly the type declared by bindings:
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
//! A C library may keep the closure, and call back when it needs it no more:
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

use crate::crossing::run_c_api;
use crate::handle::table;
use kinds::{ClosureKind, Refused};

pub use arguments::{Arguments, CallMut, CallOnce, CallShared};
pub use kinds::{Call, Mutable, Once, Repeatable, Shared};
pub use scope::{Borrowed, BorrowedMut, scope, scope_shared};

/// Safe code can neither end the callback of another scope, nor make its function from a type
/// alone.
///
/// ```compile_fail,E0133
/// use upcall::callback::{Call, Callback};
///
/// fn removes<C: Call<(u32,), u32>, E>(callback: &Callback<C, E, (u32,), u32>) {
///     let _ = C::remove(callback.data().addr());
/// }
/// ```
///
/// ```compile_fail,E0133
/// use upcall::callback::{Arguments, Call};
///
/// fn function<C: Call<(u32,), u32>, E: Fn() -> u32 + Copy>() {
///     let _ = <(u32,) as Arguments<u32>>::data_first::<C, E>();
/// }
/// ```
///
/// The second closure cannot hold a token of one thread, or of one scope:
///
/// ```compile_fail,E0277
/// use std::marker::PhantomData;
///
/// #[derive(Clone, Copy)]
/// struct OnThisThread(PhantomData<*const ()>);
/// let token = OnThisThread(PhantomData);
/// let callback = upcall::callback::new(|_: u32| -> u32 { 1 }, move || { let _token = token; 0 });
/// ```
///
/// ```compile_fail,E0597
/// use std::marker::PhantomData;
///
/// #[derive(Clone, Copy)]
/// struct InScope<'a>(PhantomData<&'a ()>);
/// fn of<T>(_: &T) -> InScope<'_> {
///     InScope(PhantomData)
/// }
/// let kept = {
///     let scope = ();
///     let token = of(&scope);
///     upcall::callback::new(|_: u32| -> u32 { 1 }, move || { let _token = token; 0 })
/// };
/// drop(kept);
/// ```
#[cfg(doctest)]
struct RefusedByTheCompiler;

/// A closure as seen by C: a function, and a `void *` to pass to it.
///
/// `C` is the kind of the closure. The function has arguments `A` and returns `R`. `E` is the type
/// of `otherwise`.
///
/// Dropping a callback drops the closure, unless [`into_data`](Self::into_data) gave it to C.
pub struct Callback<C: ClosureKind, E, A, R> {
    /// The number used by C as a pointer.
    data: usize,
    closure: PhantomData<C>,
    otherwise: PhantomData<E>,
    signature: PhantomData<fn(A) -> R>,
}

/// Makes a callback of an `FnMut`, for one call at a time.
///
/// If C calls it while it runs, from another thread or inside itself, that call cannot be made, and
/// gets the value of `otherwise`.
pub fn new<F, E, A, R>(f: F, otherwise: E) -> Callback<Mutable<F>, E, A, R>
where
    F: CallMut<A, R> + Send + 'static,
    E: Fn() -> R + Copy + Send + 'static,
    A: Arguments<R>,
{
    Callback::of(Mutable(f), otherwise)
}

/// Makes a callback of an `Fn`, for several threads at once.
pub fn shared<F, E, A, R>(f: F, otherwise: E) -> Callback<Shared<F>, E, A, R>
where
    F: CallShared<A, R> + Send + Sync + 'static,
    E: Fn() -> R + Copy + Send + 'static,
    A: Arguments<R>,
{
    Callback::of(Shared(f), otherwise)
}

/// Makes a callback of an `FnOnce`, for one call. The call frees the closure.
///
/// If a library destroys it after the call, this does no harm. A second call cannot be made, and
/// gets the value of `otherwise`.
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
    E: Fn() -> R + Copy + Send + 'static,
    A: Arguments<R>,
{
    Callback::of(Once(f), otherwise)
}

impl<C: Call<A, R>, E: Fn() -> R + Copy, A: Arguments<R>, R> Callback<C, E, A, R> {
    fn of(closure: C, _: E) -> Self
    where
        E: Send + 'static,
    {
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

    /// The function for C, with the `void *` as its first argument.
    pub fn data_first(&self) -> A::DataFirst {
        // SAFETY: `of` was given a value of `E`, and its bounds and assertion require `Send`,
        // `'static` and no size.
        unsafe { A::data_first::<C, E>() }
    }

    /// The function for C, with the `void *` as its last argument.
    pub fn data_last(&self) -> A::DataLast {
        // SAFETY: `of` was given a value of `E`, and its bounds and assertion require `Send`,
        // `'static` and no size.
        unsafe { A::data_last::<C, E>() }
    }
}

impl<C: ClosureKind, E, A, R> Callback<C, E, A, R> {
    /// The `void *` for C. This value still owns the closure.
    pub fn data(&self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.data)
    }
}

impl<C: Repeatable, E, A, R> Callback<C, E, A, R> {
    /// Gives the closure to C, and returns its `void *`.
    ///
    /// The closure stays until C calls [`destroy`](Self::destroy) with this `void *`, or for ever.
    pub fn into_data(self) -> *mut c_void {
        let data = self.data();
        forget(self);
        data
    }

    /// A function for C to drop a closure by its `void *`, for C libraries that ask for one.
    ///
    /// It drops the closure in an upcall. If the closure runs, it is dropped after its return. If
    /// there is none, as after a second call by C, the function only leaves a message for
    /// [`last_message`](crate::c::last_message).
    pub fn destroy(&self) -> unsafe extern "C" fn(*mut c_void) {
        unsafe extern "C" fn destroy<C: Repeatable>(data: *mut c_void) {
            run_c_api(|| {
                // SAFETY: C owns the callback, since `into_data` gave it away.
                unsafe { C::remove(data.addr()) }.map_err(|error| Refused::from(error).message(C::name()))
            });
        }
        destroy::<C>
    }
}

impl<C: ClosureKind, E, A, R> Drop for Callback<C, E, A, R> {
    fn drop(&mut self) {
        // C may have destroyed it already.
        // SAFETY: the callback is being dropped by its owner.
        let _ = unsafe { C::remove(self.data) };
    }
}

impl<C: ClosureKind, E, A, R> fmt::Debug for Callback<C, E, A, R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Callback({}, {:#x})", C::name(), self.data)
    }
}

/// Runs a call made by C.
///
/// # Safety
/// There was a value of `E`, and `E` has no size and is `Send` and `'static`. `data` is as
/// [`Call::call`] requires.
#[inline(always)]
unsafe fn run<C: Call<A, R>, E: Fn() -> R + Copy, A, R>(data: *mut c_void, arguments: A) -> R {
    // SAFETY: the caller guarantees that `data` is as `Call::call` requires.
    let call = || unsafe { C::call(data.addr(), arguments) }.map_err(|refused| refused.message(C::name()));
    match run_c_api(call) {
        Some(value) => value,
        None => {
            // SAFETY: the caller guarantees that there was a value. It has no size, so another copy
            // needs no bytes. It is `Send` and `'static`, so this thread may use the copy now.
            let otherwise = unsafe { NonNull::<E>::dangling().as_ref() };
            otherwise()
        }
    }
}
