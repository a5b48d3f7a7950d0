//! Tuples of arguments, by one macro: closures that take them, and C functions that take a
//! `void *` before or after them.

use std::ffi::c_void;

use super::kinds::Call;
use super::run;

/// The arguments of a callback with result `R`: a tuple of up to eight types. The closure names
/// them.
pub trait Arguments<R>: Sized {
    /// A C function with the `void *` before these arguments.
    type DataFirst;
    /// A C function with the `void *` after these arguments.
    type DataLast;

    /// Makes the function with the `void *` first.
    ///
    /// # Safety
    /// A value of type `E` exists. `E` has no size, and is `Send` and `'static`.
    #[doc(hidden)]
    unsafe fn data_first<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataFirst;
    /// Makes the function with the `void *` last.
    ///
    /// # Safety
    /// A value of type `E` exists. `E` has no size, and is `Send` and `'static`.
    #[doc(hidden)]
    unsafe fn data_last<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataLast;
}

/// A closure for one call with arguments `A` and result `R`: an `FnOnce`.
pub trait CallOnce<A, R> {
    #[doc(hidden)]
    fn call_once(self, arguments: A) -> R;
}

/// A closure for many calls, one at a time: an `FnMut`.
pub trait CallMut<A, R> {
    #[doc(hidden)]
    fn call_mut(&mut self, arguments: A) -> R;
}

/// A closure for many calls at once: an `Fn`.
pub trait CallShared<A, R> {
    #[doc(hidden)]
    fn call(&self, arguments: A) -> R;
}

macro_rules! arguments {
    ($($a:ident: $A:ident),*) => {
        impl<R, $($A),*> Arguments<R> for ($($A,)*) {
            type DataFirst = unsafe extern "C" fn(*mut c_void, $($A),*) -> R;
            type DataLast = unsafe extern "C" fn($($A,)* *mut c_void) -> R;

            unsafe fn data_first<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataFirst {
                unsafe extern "C" fn called<C: Call<($($A,)*), R>, E: Fn() -> R + Copy, R, $($A),*>(
                    data: *mut c_void,
                    $($a: $A),*
                ) -> R {
                    // SAFETY: `data_first` or `data_last` made this function for an `E` and a
                    // callback of kind `C`. C passes the `void *` of this callback, or one that
                    // leads to no such closure.
                    unsafe { run::<C, E, ($($A,)*), R>(data, ($($a,)*)) }
                }
                called::<C, E, R, $($A),*>
            }

            unsafe fn data_last<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataLast {
                unsafe extern "C" fn called<C: Call<($($A,)*), R>, E: Fn() -> R + Copy, R, $($A),*>(
                    $($a: $A,)*
                    data: *mut c_void,
                ) -> R {
                    // SAFETY: `data_first` or `data_last` made this function for an `E` and a
                    // callback of kind `C`. C passes the `void *` of this callback, or one that
                    // leads to no such closure.
                    unsafe { run::<C, E, ($($A,)*), R>(data, ($($a,)*)) }
                }
                called::<C, E, R, $($A),*>
            }
        }

        impl<F: FnOnce($($A),*) -> R, R, $($A),*> CallOnce<($($A,)*), R> for F {
            #[inline(always)]
            fn call_once(self, ($($a,)*): ($($A,)*)) -> R {
                self($($a),*)
            }
        }

        impl<F: FnMut($($A),*) -> R, R, $($A),*> CallMut<($($A,)*), R> for F {
            #[inline(always)]
            fn call_mut(&mut self, ($($a,)*): ($($A,)*)) -> R {
                self($($a),*)
            }
        }

        impl<F: Fn($($A),*) -> R, R, $($A),*> CallShared<($($A,)*), R> for F {
            #[inline(always)]
            fn call(&self, ($($a,)*): ($($A,)*)) -> R {
                self($($a),*)
            }
        }
    };
}

arguments!();
arguments!(a: A1);
arguments!(a: A1, b: A2);
arguments!(a: A1, b: A2, c: A3);
arguments!(a: A1, b: A2, c: A3, d: A4);
arguments!(a: A1, b: A2, c: A3, d: A4, e: A5);
arguments!(a: A1, b: A2, c: A3, d: A4, e: A5, f: A6);
arguments!(a: A1, b: A2, c: A3, d: A4, e: A5, f: A6, g: A7);
arguments!(a: A1, b: A2, c: A3, d: A4, e: A5, f: A6, g: A7, h: A8);
