//! One macro for the tuples of arguments: closures that take them, and functions in C that do so with a `void *` first or last.

use std::ffi::c_void;

use super::kinds::Call;
use super::run;

/// The arguments of a callback that returns `R`: a tuple of up to eight. Closures name them.
pub trait Arguments<R>: Sized {
    /// A function that gets the `void *` before these.
    type DataFirst;
    /// A function that gets the `void *` after these.
    type DataLast;

    #[doc(hidden)]
    fn data_first<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataFirst;
    #[doc(hidden)]
    fn data_last<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataLast;
}

/// A closure that can be called once with arguments `A`, and returns `R`: an `FnOnce`.
pub trait CallOnce<A, R> {
    #[doc(hidden)]
    fn call_once(self, arguments: A) -> R;
}

/// One that can be called again: an `FnMut`.
pub trait CallMut<A, R> {
    #[doc(hidden)]
    fn call_mut(&mut self, arguments: A) -> R;
}

/// One that can be called while it runs: an `Fn`.
pub trait CallShared<A, R> {
    #[doc(hidden)]
    fn call(&self, arguments: A) -> R;
}

macro_rules! arguments {
    ($($a:ident: $A:ident),*) => {
        impl<R, $($A),*> Arguments<R> for ($($A,)*) {
            type DataFirst = unsafe extern "C" fn(*mut c_void, $($A),*) -> R;
            type DataLast = unsafe extern "C" fn($($A,)* *mut c_void) -> R;

            fn data_first<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataFirst {
                unsafe extern "C" fn called<C: Call<($($A,)*), R>, E: Fn() -> R + Copy, R, $($A),*>(
                    data: *mut c_void,
                    $($a: $A),*
                ) -> R {
                    run::<C, E, ($($A,)*), R>(data, ($($a,)*))
                }
                called::<C, E, R, $($A),*>
            }

            fn data_last<C: Call<Self, R>, E: Fn() -> R + Copy>() -> Self::DataLast {
                unsafe extern "C" fn called<C: Call<($($A,)*), R>, E: Fn() -> R + Copy, R, $($A),*>(
                    $($a: $A,)*
                    data: *mut c_void,
                ) -> R {
                    run::<C, E, ($($A,)*), R>(data, ($($a,)*))
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
