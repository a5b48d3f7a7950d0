//! Closures that borrow: C has them until their scope ends, and its late calls lead nowhere.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use stackbounds::stack_pointer;

use super::Callback;
use super::arguments::{Arguments, CallMut, CallShared};
use super::kinds::{Call, Kind, Refused};
use crate::fiber::wait::wait_shielded;
use crate::handle::{HandleError, table};
use crate::process::fork;
use crate::quiet::fatal;
use crate::sync::lock;
use crate::thread::{Hot, record};

/// Has C call `f`, which may borrow and change what it likes, while `body` runs. Calls from other threads cannot be made, nor calls inside itself.
///
/// # Aborts
/// When a call has not returned by the end: on a coroutine of the host's that is suspended, or because C left it by `longjmp`. What it borrows would be gone.
pub fn scope<F, E, A, R, T>(
    mut f: F,
    otherwise: E,
    body: impl FnOnce(&Callback<BorrowedMut<F>, E, A, R>) -> T,
) -> T
where
    F: CallMut<A, R>,
    E: Fn() -> R + Copy,
    A: Arguments<R>,
{
    let hot = Hot::here();
    record::attach_if_new(hot, stack_pointer());
    let closure = BorrowedMut {
        f: NonNull::from(&mut f),
        thread: hot.mark().serial,
        runs: Cell::new(false),
        ended: AtEnd::default(),
    };
    // Dropped before `f`, however `body` ends.
    let callback = Callback::of(closure, otherwise);
    body(&callback)
}

/// Has C call `f`, which may borrow, from any threads while `body` runs. Calls that have not returned by then are waited for, as by [`wait`](crate::wait):
/// for ever, if this thread is in one itself.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use upcall::callback;
///
/// let sum = AtomicU64::new(0);
/// let add = |number: u64| { sum.fetch_add(number, Relaxed); };
/// callback::scope_shared(add, || (), |add| {
///     let function = add.data_first();
///     let data = add.data() as usize;
///     // In the place of a C library with threads of its own.
///     std::thread::scope(|threads| {
///         for number in [1, 2, 3] {
///             threads.spawn(move || unsafe { function(data as *mut _, number) });
///         }
///     });
/// });
/// assert_eq!(sum.into_inner(), 6);
/// ```
pub fn scope_shared<F, E, A, R, T>(
    f: F,
    otherwise: E,
    body: impl FnOnce(&Callback<Borrowed<F>, E, A, R>) -> T,
) -> T
where
    F: CallShared<A, R> + Sync,
    E: Fn() -> R + Copy,
    A: Arguments<R>,
{
    let callback = Callback::of(Borrowed { f: NonNull::from(&f), ended: AtEnd::default() }, otherwise);
    body(&callback)
}

/// An `FnMut` of a [`scope`].
pub struct BorrowedMut<F> {
    /// In the scope's frame.
    f: NonNull<F>,
    /// The scope's.
    thread: usize,
    /// For that thread.
    runs: Cell<bool>,
    ended: AtEnd,
}

/// An `Fn` of a [`scope_shared`].
pub struct Borrowed<F> {
    /// In the scope's frame.
    f: NonNull<F>,
    ended: AtEnd,
}

impl<F> Kind for BorrowedMut<F> {
    type Closure = F;

    fn remove(data: usize) -> Result<(), HandleError> {
        let ended = |closure: &Self| {
            if closure.runs.get() {
                fatal(format_args!(
                    "the scope of the callback {} ended before a call of it returned, and what that borrows would be gone",
                    Self::name()
                ));
            }
            closure.ended.0.clone()
        };
        // SAFETY: this is the scope's thread. Others look at `thread` only, and may drop all but `f`.
        unsafe { end(data, ended) }
    }
}

impl<F: CallMut<A, R>, A, R> Call<A, R> for BorrowedMut<F> {
    #[inline(always)]
    fn call(data: usize, arguments: A) -> Result<R, Refused> {
        struct Runs<'a>(&'a Cell<bool>);
        impl Drop for Runs<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        let call = |closure: &Self| {
            if closure.thread != Hot::here().mark().serial {
                return Err(Refused::OtherThread);
            }
            if closure.runs.replace(true) {
                return Err(Refused::Data(HandleError::InUse));
            }
            let _runs = Runs(&closure.runs);
            // SAFETY: the scope is open, and if it ended before this call, that would stop the process; and this is the only call.
            Ok(unsafe { &mut *closure.f.as_ptr() }.call_mut(arguments))
        };
        // SAFETY: other threads than the scope's look at `thread` only.
        unsafe { table::with(data, call) }?
    }
}

impl<F> Kind for Borrowed<F> {
    type Closure = F;

    fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: threads may drop all but `f`.
        unsafe { end(data, |closure: &Self| closure.ended.0.clone()) }
    }
}

impl<F: CallShared<A, R>, A, R> Call<A, R> for Borrowed<F> {
    #[inline(always)]
    fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `scope_shared` takes what is `Sync`; the scope is open, or its end waits for this call.
        Ok(unsafe { table::with(data, |closure: &Self| closure.f.as_ref().call(arguments)) }?)
    }
}

/// Lets no call in any more, and waits for those that have not returned.
///
/// # Safety
/// As for `table::with` and `table::remove`.
unsafe fn end<T>(data: usize, ended: impl FnOnce(&T) -> Arc<Ended>) -> Result<(), HandleError> {
    // SAFETY: the caller's promise.
    let ended = unsafe { table::with(data, ended) }?;
    // SAFETY: as above.
    unsafe { table::remove::<T>(data) }?;
    ended.wait();
    Ok(())
}

/// Whether what was in the table has been dropped, and who waits for that.
#[derive(Default)]
struct Ended(Mutex<(bool, Option<Waker>)>);

/// Dropped with what is in the table.
#[derive(Default)]
struct AtEnd(Arc<Ended>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let mut ended = lock(&self.0.0);
        ended.0 = true;
        let waker = ended.1.take();
        drop(ended);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Ended {
    fn wait(&self) {
        if lock(&self.0).0 {
            return;
        }
        let epoch = fork::epoch();
        wait_shielded(poll_fn(|context| {
            let mut ended = lock(&self.0);
            // Calls that other threads were in when this process was forked are the parent's.
            if ended.0 || fork::epoch() != epoch {
                return Poll::Ready(());
            }
            ended.1 = Some(context.waker().clone());
            Poll::Pending
        }));
    }
}

impl<F> fmt::Debug for BorrowedMut<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("BorrowedMut")
    }
}

impl<F> fmt::Debug for Borrowed<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Borrowed")
    }
}
