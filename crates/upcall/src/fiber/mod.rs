//! Fibers: futures that run Rust code on stacks of their own.

pub(crate) mod blocked;
#[cfg(debug_assertions)]
mod borrow_check;
pub mod coroutines;
pub(crate) mod host_runtime;
pub(crate) mod initialiser;
pub(crate) mod interrupted;
mod local;
mod promise;
pub(crate) mod sigpipe;
mod thread_end;
#[cfg(feature = "tokio")]
pub(crate) mod tokio_runtime;
pub(crate) mod wait;

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use stackbounds::stack_pointer;

pub use local::FiberLocal;
pub use promise::Fibers;
#[cfg(feature = "tokio")]
pub use tokio_runtime::tokio_runtime;
pub use wait::{wait, wait_interruptible};

use interrupted::OnInterrupt;

use crate::config::settings;
use crate::coroutine::{Coroutine, FiberContext};
use crate::crossing::{Refusal, from_pool};
use crate::function::Function;
use crate::messages::{fatal, warn};
use crate::stack::pool::Purpose;
use crate::stack::{CStays, StackHeader};
use crate::thread::{Attached, CallName, ThreadState, waker};

/// A future that runs Rust code on a stack of its own; the code may [`wait`] like a thread.
///
/// Any executor can poll it.
///
/// ```
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// use upcall::wait;
///
/// let (sender, receiver) = async_channel::bounded(1);
/// let mut fiber = Box::pin(FIBERS.fiber(move || wait(receiver.recv()).unwrap() + 1));
/// // An executor polls it; here it is `futures_lite`'s.
/// assert!(futures_lite::future::block_on(futures_lite::future::poll_once(&mut fiber)).is_none());
/// sender.try_send(41).unwrap();
/// assert_eq!(futures_lite::future::block_on(fiber), 42);
/// ```
///
/// The stack comes from the pool when the fiber is made, and goes back when the fiber ends. A fiber
/// stays on the thread that made it. It is not `Send`, because its suspended code may hold
/// addresses of thread-locals. To start a fiber on another thread, use [`spawn`](Fibers::spawn).
///
/// # Dropping
/// A fiber dropped before its first poll drops its closure. A fiber dropped while it waits is
/// unwound from that [`wait`], and its destructors run. If C frames lie on its stack, the fiber
/// ends as follows:
/// - The upcalls between the frames return to C as they do after a panic.
/// - Further upcalls from these C frames are [refused](Refusal::FiberDropped).
/// - When C has returned, the unwinding continues.
///
/// A callback that frees something must therefore free it outside [`enter`](crate::enter), or when
/// `enter` returns an error. `drop` returns when all of this is done. If a destructor waits, it
/// blocks the thread.
///
/// With `panic = "abort"`, nothing can be unwound. The fiber is leaked, with a message.
///
/// A forgotten fiber (`std::mem::forget`) keeps its stack for ever.
///
/// # Panics
/// A poll panics
/// - with the closure's panic,
/// - if the fiber has finished,
/// - from inside the fiber itself, or after C abandoned a poll of it by `longjmp`,
/// - after the fiber's thread has begun to destroy thread-locals.
///
/// While the thread is panicking, every other poll is deferred: it wakes its waker and returns
/// `Pending`.
#[must_use = "a fiber does nothing until it is polled"]
pub struct Fiber<T: 'static> {
    /// `None` once the fiber has ended.
    coroutine: Option<Coroutine<T>>,
}

/// Settings for a new fiber, made by [`Fibers::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing by itself"]
pub struct Builder {
    pub(crate) stack_size: Option<usize>,
    pub(crate) name: Option<Box<str>>,
    c_stays: CStays,
}

impl Builder {
    /// A builder with the default settings. The caller must have a [`Fibers`] token: the builder
    /// makes fibers without asking for one.
    pub(crate) fn new() -> Self {
        Self { stack_size: None, name: None, c_stays: CStays::No }
    }

    /// Sets the minimum size of the fiber's stack, in bytes.
    ///
    /// The default is the process's [`fiber_stack`](crate::Config::fiber_stack).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Names the fiber, for messages.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// Keeps C on the fiber's stack when the fiber calls it by [`downcall`](crate::downcall).
    ///
    /// Such a call then does the same as [`downcall_on_fiber`](crate::downcall_on_fiber): if an
    /// upcall from this C waits, the fiber is suspended, and the thread is not blocked. The choice
    /// belongs to the code running the fiber, not to the author of its C binding. If a binding's C
    /// must not run on a fiber's stack, the binding insists by
    /// [`downcall_on_system_stack`](crate::downcall_on_system_stack).
    ///
    /// ```
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// # extern "C" fn compare(a: *const libc::c_void, b: *const libc::c_void) -> libc::c_int {
    /// #     // SAFETY: qsort passes elements of the array below.
    /// #     upcall::enter(|| unsafe { upcall::yield_now(); a.cast::<i32>().read().cmp(&b.cast::<i32>().read()) as i32 }).unwrap()
    /// # }
    /// // A binding's. `compare` is an upcall, and waits.
    /// fn sort(mut numbers: [i32; 3]) -> [i32; 3] {
    ///     // SAFETY: the array is valid for the length given, and `compare` reads `i32`s.
    ///     upcall::downcall(|| unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(compare)) });
    ///     numbers
    /// }
    /// // Its user's: the fiber is suspended in the middle of qsort.
    /// let fiber = FIBERS.builder().c_on_fiber().stack_size(512 << 10).spawn(|| sort([3, 1, 2]));
    /// assert_eq!(fiber.join().unwrap(), [1, 2, 3]);
    /// ```
    ///
    /// **Stack size:** C has the rest of the fiber's stack. Add up the needs of the deepest call,
    /// and [`min_stack`](crate::Config::min_stack) (256 KiB) for each upcall that is to run there.
    /// With less, an upcall continues on an extension stack. 512 KiB suit C written for threads
    /// with small stacks; a main thread has 8 MiB. Only the used part costs memory. To give more to
    /// one call alone, wrap it in [`with_stack`](crate::with_stack).
    ///
    /// While C is suspended, the thread does other things, and C must tolerate this: see
    /// [`downcall_on_fiber`](crate::downcall_on_fiber).
    pub fn c_on_fiber(mut self) -> Self {
        self.c_stays = CStays::Chosen;
        self
    }

    /// Makes a fiber to run `f`.
    ///
    /// # Errors
    /// If there is no memory for the fiber's stack. `f` is dropped.
    pub fn build<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Result<Fiber<T>, Refusal> {
        let stack = take_stack(self.stack_size)?;
        stack.is_tasks.set(false);
        stack.poll_deferred.set(false);
        stack.c_stays.set(self.c_stays);
        // SAFETY: the stack was just taken from the pool, so nothing else uses it. `Fiber::end`
        // gives it back only after it has dropped the coroutine.
        Ok(Fiber { coroutine: Some(unsafe { Coroutine::new(stack, self.name, f) }) })
    }
}

impl<T: 'static> Fiber<T> {
    /// The coroutine. Panics if it has ended or is not suspended.
    fn coroutine(&mut self) -> &mut Coroutine<T> {
        match &mut self.coroutine {
            None => panic!("a fiber was polled after it had finished"),
            Some(coroutine) if coroutine.runs() => {
                let how = match was_abandoned(coroutine.stack()) {
                    _ if ThreadState::current().life.ends.get() => {
                        "after its thread had begun to destroy thread-locals"
                    }
                    true => "after C had left it by longjmp: its frames are lost, and it cannot go on",
                    false => "from inside itself",
                };
                panic!("{} was polled {how}", CallName::Fiber(coroutine.stack()))
            }
            Some(coroutine) => coroutine,
        }
    }

    /// Resumes the fiber. A panic of its closure is an `Err`. Inline for the reason given in
    /// `wait_as`.
    #[inline(always)]
    pub(crate) fn poll_result(&mut self, context: &mut Context<'_>) -> Poll<std::thread::Result<T>> {
        let thread = ThreadState::current();
        let coroutine = self.coroutine();
        let stack = coroutine.stack();
        thread.check_same_thread(stack.owner.get(), CallName::Fiber(stack));
        let upcall = thread.upcall.get();
        let beneath = thread.stack_at(stack_pointer());
        stack.beneath_resumer.set(beneath.map_or(0, |resumer| {
            stack.system_bounds.follow(&resumer.system_bounds);
            resumer.system_sp.load(Relaxed)
        }));
        thread.pooled.set(stack);
        let outer = thread.fiber.replace(stack);
        stack.upcall.set(upcall);
        // From here on, `upcall` of the thread is the fiber's: none at first, and after each wait
        // what `suspend` restores.
        thread.set_no_upcall();
        let ended = coroutine.resume(context);
        thread.check_same_thread(stack.owner.get(), CallName::Fiber(stack));
        thread.fiber.set(outer);
        thread.upcall.set(upcall);
        match ended {
            None => Poll::Pending,
            Some(result) => {
                self.end();
                Poll::Ready(result)
            }
        }
    }

    /// Notes that an executor of ours polls the fiber.
    #[cfg(feature = "runtime")]
    pub(crate) fn belongs_to_task(&self) {
        if let Some(coroutine) = &self.coroutine {
            coroutine.stack().is_tasks.set(true);
        }
    }

    /// The fiber's context, from its code's start to its end.
    pub(crate) fn running(&self) -> Option<&FiberContext> {
        self.coroutine.as_ref()?.stack().fiber()
    }

    /// Whether to defer this poll, since the thread is panicking. The fiber then resumes later,
    /// when its waits can suspend it. Only every other poll is deferred, for callers that poll in a
    /// loop until the fiber ends.
    #[cold]
    fn defers_poll(&self) -> bool {
        let coroutine = self.coroutine.as_ref().filter(|coroutine| !coroutine.runs());
        coroutine.is_some_and(|coroutine| {
            let deferred = &coroutine.stack().poll_deferred;
            !deferred.replace(!deferred.get())
        })
    }

    /// Gives the stack back. Nothing runs on it any more.
    #[inline]
    fn end(&mut self) {
        let Some(coroutine) = self.coroutine.take() else { return };
        let stack = coroutine.stack();
        drop(coroutine);
        stack.c_stays.set(CStays::No);
        stack.epoch.set(stack.epoch.get() + 1);
        let thread = ThreadState::current();
        let _attached = Attached::already(thread);
        thread.put_back(stack);
    }

    /// Leaks the suspended fiber, where panics abort and nothing can be unwound. Its frames stay as
    /// they are, and its stack stays in use.
    #[cold]
    fn leak(&mut self) {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        let Some(coroutine) = self.coroutine.take() else { return };
        let stack = coroutine.stack();
        if !REPORTED.swap(true, Relaxed) {
            let at = stack.waits.at().map_or_else(String::new, |at| format!(", which waits at {at},"));
            warn(format_args!(
                "{}{at} was dropped or aborted, and cannot be unwound: the program is built with panic = \"abort\". Its destructors do not run, and its stack \
                 is never used again. Have fibers end by themselves (a channel or flag that tells them to), or build with panic = \"unwind\". \
                 Later ones are not reported",
                CallName::Fiber(stack)
            ));
        }
        let thread = ThreadState::current();
        let _attached = Attached::already(thread);
        if let Some(fiber) = stack.fiber() {
            fiber.leave_executor();
        }
        thread.forget_stack(stack);
        std::mem::forget(coroutine);
    }

    /// The place of the fiber's wait, if the fiber waits.
    pub(crate) fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.running()?.waits_at()
    }
}

impl<T: 'static> Future for Fiber<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if std::thread::panicking() && self.defers_poll() {
            waker::catching(|| context.waker().wake_by_ref());
            return Poll::Pending;
        }
        self.poll_result(context).map(|result| result.unwrap_or_else(|payload| resume_unwind(payload)))
    }
}

impl<T: 'static> Drop for Fiber<T> {
    fn drop(&mut self) {
        let Some(coroutine) = &self.coroutine else { return };
        let stack = coroutine.stack();
        ThreadState::current().check_same_thread(stack.owner.get(), CallName::Fiber(stack));
        if coroutine.runs() && ThreadState::current().life.ends.get() {
            std::mem::forget(self.coroutine.take());
            return thread_end::fiber_is_leaked(CallName::Fiber(stack));
        }
        if coroutine.runs() && was_abandoned(stack) {
            // Leak it, like a forgotten fiber.
            return std::mem::forget(self.coroutine.take());
        }
        if coroutine.runs() {
            fatal(format_args!(
                "{} was dropped from inside itself: its frames are in use and cannot be unwound",
                CallName::Fiber(stack)
            ));
        }
        if !coroutine.started() {
            return self.end();
        }
        if cfg!(panic = "abort") {
            return self.leak();
        }
        let Some(fiber) = self.running() else { return };
        fiber.cancelled.set(true);
        // One resumption unwinds the fiber, unless it is in a shielded section. Such a section must
        // first finish its wait.
        wait::park_until(
            ThreadState::current(),
            stack_pointer(),
            Location::caller(),
            Function::of::<Self>(),
            OnInterrupt::Stays,
            &mut |context| self.poll_result(context).is_ready(),
        );
    }
}

impl<T: 'static> fmt::Debug for Fiber<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.coroutine {
            None => "finished",
            Some(coroutine) if coroutine.runs() && was_abandoned(coroutine.stack()) => "left by longjmp",
            Some(coroutine) if coroutine.runs() => "running",
            Some(coroutine) if !coroutine.started() => "not started",
            Some(_) => "suspended",
        };
        let mut debug = out.debug_struct("Fiber");
        debug.field("state", &state);
        if let Some(name) = self.running().and_then(|running| running.name.as_deref()) {
            debug.field("name", &name);
        }
        if let Some(at) = self.waits_at() {
            debug.field("waits_at", &format_args!("{at}"));
        }
        debug.finish()
    }
}

/// Takes a stack for a fiber, with at least `size` bytes.
fn take_stack(size: Option<usize>) -> Result<&'static StackHeader, Refusal> {
    let sp = stack_pointer();
    let thread = ThreadState::current();
    let _attached = Attached::new(thread, sp);
    thread.sleep.fiber_in_poll.set(|stack| stack.fiber().is_some_and(FiberContext::is_in_poll));
    let spare = if size.is_none() { thread.take_spare_for_fiber() } else { None };
    match spare {
        Some(stack) => Ok(stack),
        None => from_pool(thread, size.unwrap_or(settings().fiber_stack), sp, Purpose::Fiber),
    }
}

/// Whether C abandoned the running poll of the fiber on `stack`, by `longjmp`.
fn was_abandoned(stack: &StackHeader) -> bool {
    ThreadState::current().is_abandoned(stack.resumed_at.load(Relaxed), stack_pointer())
}
