//! Fibers that borrow.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::spawn_as;
use super::task::{JoinError, JoinHandle};
use crate::fiber::wait::wait_shielded;
use crate::process::fork;
use crate::quiet::fatal;
use crate::sync::lock;

/// Where fibers are spawned that borrow; given by [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    state: Arc<Mutex<State>>,
    /// Invariant, as in the standard library's scope of threads: a longer `'scope` would let fibers borrow what is gone, a shorter one their own scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

#[derive(Default)]
struct State {
    /// Fibers that have not ended.
    running: usize,
    /// Who waits for them.
    waker: Option<Waker>,
    /// One panicked that nobody joined.
    panicked: bool,
}

/// Runs `f`, which may spawn fibers that borrow what lives longer than this call; waits for all of them, and returns what `f` returned.
///
/// ```
/// let numbers = [1, 2, 3];
/// let sum: i32 = upcall::scope(|scope| {
///     let doubled = numbers.each_ref().map(|n| scope.spawn(move || 2 * n));
///     doubled.map(|fiber| fiber.join().unwrap()).iter().sum()
/// });
/// assert_eq!(sum, 12);
/// ```
///
/// The fibers run on upcall's workers, as those of [`spawn`](crate::spawn) do.
///
/// # Panics
/// When `f` does, and when a fiber did that was not joined; in both cases after all have ended.
///
/// A fiber that is dropped while it waits here is unwound when its scope's fibers have ended, for which its `drop` waits. If the thread is panicking then, it
/// runs nothing meanwhile, and waits for ever for those of them that are its own.
#[track_caller]
pub fn scope<'env, T>(f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let epoch = fork::epoch();
    let scope = Scope { state: Arc::default(), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // Nothing leaves this function before all have ended, neither by returning nor by unwinding.
    let bomb = Bomb;
    wait_shielded(poll_fn(|context| {
        let mut state = lock(&scope.state);
        if fork::epoch() != epoch {
            // Those that have not ended never will, here.
            state.panicked |= state.running != 0;
            return Poll::Ready(());
        }
        if state.running == 0 {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }));
    std::mem::forget(bomb);
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if lock(&scope.state).panicked => {
            panic!("a fiber of the scope panicked, or was lost by a fork")
        }
        Ok(value) => value,
    }
}

/// Goes off when the wait of a scope unwinds.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        fatal("a wait of a scope panicked, and what its fibers borrow would be gone");
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Runs `f` as a fiber that ends before the scope does.
    #[track_caller]
    pub fn spawn<T: Send + 'scope>(
        &'scope self,
        f: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        lock(&self.state).running += 1;
        let counted = Counted(self.state.clone());
        let result = Arc::new(Outcome { result: Mutex::new(None), state: self.state.clone() });
        let job = Job { f, result: result.clone(), _counted: counted };
        let job: Box<dyn FnOnce() + Send + 'scope> = Box::new(move || job.run());
        // SAFETY: only the lifetime changes. What the closure borrows is alive until `Counted` has been dropped, for which `scope` waits;
        // that is the last that happens in it, whether it is run or not.
        let job: Box<dyn FnOnce() + Send> = unsafe { std::mem::transmute(job) };
        let ended = spawn_as(None, Location::caller(), job);
        ScopedJoinHandle { ended, result, scope: PhantomData }
    }
}

/// What a fiber does. The fields are dropped in this order.
struct Job<F, T> {
    f: F,
    result: Arc<Outcome<T>>,
    _counted: Counted,
}

impl<T, F: FnOnce() -> T> Job<F, T> {
    fn run(self) {
        let Job { f, result, _counted } = self;
        let value = catch_unwind(AssertUnwindSafe(f));
        *lock(&result.result) = Some(value);
        drop(result);
    }
}

/// Counts as a fiber that has not ended.
struct Counted(Arc<Mutex<State>>);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.running -= 1;
        let waker = if state.running == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Where the result is kept for the joiner.
struct Outcome<T> {
    result: Mutex<Option<std::thread::Result<T>>>,
    state: Arc<Mutex<State>>,
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        if let Some(Err(_)) = lock(&self.result).as_ref() {
            lock(&self.state).panicked = true;
        }
    }
}

/// What [`Scope::spawn`] gives. If it is dropped, a panic of the fiber is one of its scope.
pub struct ScopedJoinHandle<'scope, T> {
    ended: JoinHandle<()>,
    result: Arc<Outcome<T>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the fiber's end.
    ///
    /// # Errors
    /// When it panicked or never began.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.ended.join()?;
        let result = lock(&self.result.result).take();
        result.expect("upcall: a fiber that has run leaves a result").map_err(JoinError::panicked)
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.ended.is_finished()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Scope").field("running", &lock(&self.state).running).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ScopedJoinHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
