//! Closures that borrow: C has them until their scope ends, and later calls reach nothing.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use stackbounds::stack_pointer;

use super::Callback;
use super::arguments::{Arguments, CallMut, CallShared};
use super::kinds::{Call, ClosureKind, Refused};
use crate::drop_guards::AbortOnDrop;
use crate::fiber::wait::wait_shielded;
use crate::handle::{HandleError, table};
use crate::messages::fatal;
use crate::process::fork;
use crate::sync::lock;
use crate::thread::{Attached, ThreadState, waker};

/// Lets C call `f` while `body` runs. `f` may borrow, and may change its variables.
///
/// Calls from other threads cannot be made, nor calls of `f` inside itself.
///
/// # Aborts
/// If a call has not returned by the end: its borrows would be gone. The call may be on a suspended
/// coroutine of the host's. A call abandoned by `longjmp` counts as one, unless it is certain that
/// its frame is gone: then only 64 bytes or so are leaked.
pub fn scope<F, E, A, R, T>(
    mut f: F,
    otherwise: E,
    body: impl FnOnce(&Callback<BorrowedMut<F>, E, A, R>) -> T,
) -> T
where
    F: CallMut<A, R>,
    E: Fn() -> R + Copy + Send + 'static,
    A: Arguments<R>,
{
    let thread = ThreadState::current();
    let _attached = Attached::new(thread, stack_pointer());
    let closure = BorrowedMut {
        f: NonNull::from(&mut f),
        thread: thread.id().serial,
        runs: Cell::new(0),
        abandoned: Cell::new(false),
        ended: AtEnd::default(),
    };
    // Dropped before `f`, even if `body` panics.
    let callback = Callback::of(closure, otherwise);
    body(&callback)
}

/// Lets C call `f` from any thread while `body` runs. `f` may borrow.
///
/// At the end, this waits for calls that have not returned, as [`wait`](crate::wait) does. If this
/// thread is inside one of them, it waits for ever.
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
    E: Fn() -> R + Copy + Send + 'static,
    A: Arguments<R>,
{
    let callback = Callback::of(Borrowed { f: NonNull::from(&f), ended: AtEnd::default() }, otherwise);
    body(&callback)
}

/// An `FnMut` callback of a [`scope`].
pub struct BorrowedMut<F> {
    /// The closure, in the scope's frame.
    f: NonNull<F>,
    /// The serial of the scope's thread.
    thread: usize,
    /// SP of the call that has not returned, or 0. Only the scope's thread uses it.
    runs: Cell<usize>,
    /// Whether C has abandoned a call by `longjmp`: it will never leave the table's value.
    abandoned: Cell<bool>,
    ended: AtEnd,
}

/// An `Fn` callback of a [`scope_shared`].
pub struct Borrowed<F> {
    /// The closure, in the scope's frame.
    f: NonNull<F>,
    ended: AtEnd,
}

impl<F> ClosureKind for BorrowedMut<F> {
    type Closure = F;

    unsafe fn remove(data: usize) -> Result<(), HandleError> {
        let ended = |closure: &Self| {
            if is_in_use(closure.runs.get(), stack_pointer()) {
                fatal(format_args!(
                    "the scope of the callback {} ended before a call of it returned, and what that borrows would be gone",
                    Self::name()
                ));
            }
            let abandoned = closure.runs.get() != 0 || closure.abandoned.get();
            (!abandoned).then(|| closure.ended.0.clone())
        };
        // SAFETY: this is the scope's thread, and other threads read only `thread`. Any thread may
        // drop a `Self`: it only points to the closure.
        unsafe { end(data, ended) }
    }
}

impl<F: CallMut<A, R>, A, R> Call<A, R> for BorrowedMut<F> {
    #[inline(always)]
    unsafe fn call(data: usize, arguments: A) -> Result<R, Refused> {
        struct Runs<'a>(&'a Cell<usize>);
        impl Drop for Runs<'_> {
            fn drop(&mut self) {
                self.0.set(0);
            }
        }
        let call = |closure: &Self| {
            if closure.thread != ThreadState::current().id().serial {
                return Err(Refused::OtherThread);
            }
            let sp = stack_pointer();
            if is_in_use(closure.runs.get(), sp) {
                return Err(Refused::Data(HandleError::InUse));
            }
            if closure.runs.replace(sp) != 0 {
                closure.abandoned.set(true);
            }
            let _runs = Runs(&closure.runs);
            // SAFETY: the scope is open, since its end during this call would abort the process.
            // This is the only call.
            Ok(unsafe { &mut *closure.f.as_ptr() }.call_mut(arguments))
        };
        // SAFETY: threads other than the scope's read only `thread`.
        unsafe { table::with(data, call) }?
    }
}

impl<F> ClosureKind for Borrowed<F> {
    type Closure = F;

    unsafe fn remove(data: usize) -> Result<(), HandleError> {
        // SAFETY: any thread may drop a `Self`: it only points to the closure.
        unsafe { end(data, |closure: &Self| Some(closure.ended.0.clone())) }
    }
}

impl<F: CallShared<A, R>, A, R> Call<A, R> for Borrowed<F> {
    #[inline(always)]
    unsafe fn call(data: usize, arguments: A) -> Result<R, Refused> {
        // SAFETY: `scope_shared` requires `F: Sync`. The scope is open, or its end waits for this
        // call.
        Ok(unsafe { table::with(data, |closure: &Self| closure.f.as_ref().call(arguments)) }?)
    }
}

/// Whether a call at `call_sp` is in progress: it has neither returned nor been abandoned by
/// `longjmp`. If `call_sp` is 0, there is no call.
fn is_in_use(call_sp: usize, sp: usize) -> bool {
    call_sp != 0 && !ThreadState::current().is_abandoned(call_sp, sp)
}

/// Lets no more calls in, and waits for those that have not returned: until the value in the table
/// is dropped. `ended` gives `None` if that will never be, because C has abandoned all of them.
///
/// # Safety
/// `ended`'s use of the value must be sound on this thread, at the same time as other shared uses.
/// The value must be allowed to be dropped on this thread, and on the threads of all its users.
unsafe fn end<T>(data: usize, ended: impl FnOnce(&T) -> Option<Arc<Ended>>) -> Result<(), HandleError> {
    // SAFETY: the caller guarantees what `table::with` requires.
    let ended = unsafe { table::with(data, ended) }?;
    // SAFETY: the caller guarantees what `table::remove` requires.
    unsafe { table::remove::<T>(data) }?;
    if let Some(ended) = ended {
        ended.wait();
    }
    Ok(())
}

/// Whether the value in the table has been dropped, and the waker of the scope waiting for this.
#[derive(Default)]
struct Ended(Mutex<(bool, Option<Waker>)>);

/// Part of the value in the table: its drop tells the scope.
#[derive(Default)]
struct AtEnd(Arc<Ended>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let mut ended = lock(&self.0.0);
        ended.0 = true;
        let waker = ended.1.take();
        drop(ended);
        if let Some(waker) = waker {
            waker::wake(waker);
        }
    }
}

impl Ended {
    /// Waits for the drop. Never unwinds, since the borrows of calls must stay.
    fn wait(&self) {
        if lock(&self.0).0 {
            return;
        }
        let bomb = AbortOnDrop(
            "a wait at the end of a callback's scope panicked, and what its calls borrow would be gone",
        );
        let epoch = fork::epoch();
        wait_shielded(poll_fn(|context| {
            let waker = context.waker().clone();
            let mut ended = lock(&self.0);
            // After a fork, calls in progress on other threads exist only in the parent.
            if ended.0 || fork::epoch() != epoch {
                return Poll::Ready(());
            }
            let before = ended.1.replace(waker);
            drop(ended);
            waker::discard(before);
            Poll::Pending
        }));
        std::mem::forget(bomb);
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
