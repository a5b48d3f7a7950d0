//! The promise behind safe fibers.

use super::{Builder, Fiber};

/// The right to make fibers, for a library or program that keeps the promise of
/// [`Fibers::promise`].
///
/// A zero-sized token: make it once, as a constant, and call its methods.
///
/// ```
/// // SAFETY: no code on fibers borrows a thread-local across a wait, and no thread-local's
/// // initialiser waits.
/// const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
///
/// let answer = FIBERS.spawn(|| {
///     upcall::sleep(std::time::Duration::from_millis(1));
///     42
/// });
/// assert_eq!(answer.join()?, 42);
/// # Ok::<(), upcall::JoinError>(())
/// ```
///
/// Waiting needs no token: [`wait`](crate::wait), [`sleep`](crate::sleep) and
/// [`blocking`](crate::blocking) are for everybody, on fibers and off.
///
/// Safe code alone makes no fiber:
///
/// ```compile_fail,E0133
/// const FIBERS: upcall::Fibers = upcall::Fibers::promise();
/// ```
///
/// ```compile_fail,E0423
/// let fibers = upcall::Fibers(());
/// ```
///
/// ```compile_fail,E0277
/// let builder: upcall::Builder = Default::default();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fibers(());

impl Fibers {
    /// Promises how code on fibers uses thread-locals.
    ///
    /// A fiber is suspended in the middle of its frames. Other fibers of its thread run meanwhile,
    /// and the thread can end before the fiber resumes. `LocalKey::with` is not made for either:
    /// its borrow must end before the thread does, and an initialiser must not run twice. Rust's
    /// rules do not let a library check this.
    ///
    /// ```no_run
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// thread_local!(static NAME: String = "a value".to_owned());
    ///
    /// // Breaks the promise: the borrow lives across the wait.
    /// FIBERS.spawn(|| NAME.with(|name| { upcall::yield_now(); println!("{name}") }));
    ///
    /// // Keeps it: the value is copied out first. A `FiberLocal` is the other cure.
    /// FIBERS.spawn(|| {
    ///     let name = NAME.with(String::clone);
    ///     upcall::yield_now();
    ///     println!("{name}")
    /// });
    /// ```
    ///
    /// # Safety
    /// Code on fibers of this token
    /// - holds no borrow of a thread-local across a wait, and
    /// - uses no thread-local with an initialiser that waits.
    ///
    /// A wait is every call that can suspend the fiber: `wait`, `sleep`, `yield_now`, `join`,
    /// `blocking`, and C called by [`downcall_on_fiber`](crate::downcall_on_fiber), because its
    /// upcalls may wait. A thread-local is one of `thread_local!` or `#[thread_local]`, also if a
    /// crate keeps it on your behalf: scoped thread-locals too.
    #[inline]
    pub const unsafe fn promise() -> Self {
        Self(())
    }

    /// Makes a fiber to run `f`.
    ///
    /// # Panics
    /// If there is no memory for its stack. [`Builder::build`] returns an error instead.
    pub fn fiber<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Fiber<T> {
        match self.builder().build(f) {
            Ok(fiber) => fiber,
            Err(refusal) => panic!("Fibers::fiber: {refusal}"),
        }
    }

    /// Gives a builder, for a fiber with a stack size or a name of its own.
    ///
    /// ```
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// let fiber = FIBERS.builder().stack_size(1 << 20).name("deep").build(|| 6 * 7)?;
    /// assert_eq!(upcall::wait(fiber), 42);
    /// # Ok::<(), upcall::Refusal>(())
    /// ```
    pub fn builder(self) -> Builder {
        Builder::new()
    }
}
