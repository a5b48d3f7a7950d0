//! Scopes, for fibers that borrow.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use super::spawn_as;
use super::spawned::{JoinError, JoinHandle};
use crate::drop_guards::AbortOnDrop;
use crate::fiber::Fibers;
use crate::fiber::wait::wait_shielded;
use crate::process::fork;
use crate::sync::lock;
use crate::thread::waker;

/// A scope for spawning fibers that borrow; [`Fibers::scope`] gives it.
pub struct Scope<'scope, 'env: 'scope> {
    state: Arc<Mutex<State>>,
    /// Invariant, like the standard library's scope of threads: with a longer `'scope`, fibers
    /// could borrow dead values; with a shorter one, their own scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

#[derive(Default)]
struct State {
    /// The number of unfinished fibers.
    running: usize,
    /// The waker of the wait for them.
    waker: Option<Waker>,
    /// Whether a fiber panicked and nobody joined it.
    panicked: bool,
}

impl Fibers {
    /// Runs `f`, waits for all fibers that it spawned in the scope, and returns the result of `f`.
    ///
    /// The fibers may borrow values living longer than this call.
    ///
    /// ```
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// let numbers = [1, 2, 3];
    /// let sum: i32 = FIBERS.scope(|scope| {
    ///     let doubled = numbers.each_ref().map(|n| scope.spawn(move || 2 * n));
    ///     doubled.map(|fiber| fiber.join().unwrap()).iter().sum()
    /// });
    /// assert_eq!(sum, 12);
    /// ```
    ///
    /// The fibers run on upcall's workers, like those of [`spawn`](Self::spawn).
    ///
    /// A fiber dropped while it waits here is unwound only when its scope's fibers have ended; its
    /// `drop` waits for them. **Deadlock:** if the thread is panicking then, it runs nothing
    /// meanwhile, and waits for ever for those of them that are its own.
    ///
    /// # Panics
    /// If `f` panics, or a fiber panicked and was not joined; in both cases after all fibers have
    /// ended. Also in the child of a fork made meanwhile, if fibers were unfinished: there they
    /// never end.
    #[track_caller]
    pub fn scope<'env, T>(self, f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
        let epoch = fork::epoch();
        let scope = Scope { state: Arc::default(), scope: PhantomData, env: PhantomData };
        let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
        // Nothing leaves this function before all fibers have ended, neither by returning nor by
        // unwinding.
        let bomb = AbortOnDrop("a wait of a scope panicked, and what its fibers borrow would be gone");
        wait_shielded(poll_fn(|context| {
            let waker = context.waker().clone();
            let mut state = lock(&scope.state);
            if fork::epoch() != epoch {
                // Unfinished fibers never end in this process.
                state.panicked |= state.running != 0;
                return Poll::Ready(());
            }
            if state.running == 0 {
                return Poll::Ready(());
            }
            let before = state.waker.replace(waker);
            drop(state);
            waker::discard(before);
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
        // SAFETY: only the lifetime changes. The closure's borrows live until `Counted` has been
        // dropped, because `scope` waits for that. This drop is the last use of the closure,
        // whether it is run or not.
        let job: Box<dyn FnOnce() + Send> = unsafe { std::mem::transmute(job) };
        let ended = spawn_as(None, Location::caller(), job);
        ScopedJoinHandle { ended, result, scope: PhantomData }
    }
}

/// The work of a fiber. The fields are dropped in this order.
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

/// Counts as an unfinished fiber until it is dropped.
struct Counted(Arc<Mutex<State>>);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.running -= 1;
        let waker = if state.running == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker::wake(waker);
        }
    }
}

/// The result of a fiber, kept for its joiner.
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

/// A handle on a fiber of a scope; [`Scope::spawn`] gives it.
///
/// If it is dropped, a panic of the fiber becomes a panic of the scope.
pub struct ScopedJoinHandle<'scope, T> {
    ended: JoinHandle<()>,
    result: Arc<Outcome<T>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the fiber's end, and returns its result.
    ///
    /// # Errors
    /// If the fiber panicked or never began: see [`JoinError`].
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        self.ended.join()?;
        let result = lock(&self.result.result).take();
        result.expect("upcall: a fiber that has run leaves a result").map_err(JoinError::panicked)
    }

    /// Whether the fiber has ended.
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
