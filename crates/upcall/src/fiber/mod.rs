//! Fibers: Rust code with a stack of its own that can suspend, as futures.

pub(crate) mod host_runtime;
mod local;
pub(crate) mod wait;

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use stackbounds::stack_pointer;

pub use local::FiberLocal;
pub use wait::wait;

use crate::config::settings;
use crate::crossing::{Refusal, from_pool};
use crate::function::Function;
use crate::quiet::fatal;
use crate::stack::Control;
use crate::stack::coroutine::{Coroutine, Running};
use crate::stack::pool::Purpose;
use crate::thread::{Hot, record};

/// Rust code with a stack of its own: a future that any executor runs, and whose code may [`wait`] like a thread.
///
/// ```
/// use upcall::{Fiber, wait};
///
/// let (sender, receiver) = async_channel::bounded(1);
/// let mut fiber = Box::pin(Fiber::new(move || wait(receiver.recv()).unwrap() + 1));
/// // An executor polls it; here it is `futures_lite`'s.
/// assert!(futures_lite::future::block_on(futures_lite::future::poll_once(&mut fiber)).is_none());
/// sender.try_send(41).unwrap();
/// assert_eq!(futures_lite::future::block_on(fiber), 42);
/// ```
///
/// The stack is taken from the pool when the fiber is made, and goes back when it ends. A fiber stays on the thread that made it: it is not
/// `Send`, since code in the middle of it may hold addresses of thread-locals. For fibers that begin on another thread there is
/// [`spawn`](crate::spawn).
///
/// # Dropping
/// A fiber that is dropped before its first poll drops its closure. Dropped while it waits, it is unwound from that [`wait`], and its
/// destructors run. If C frames lie on its stack, upcalls between them answer what they answer after a panic, further upcalls from them are
/// [refused](Refusal::FiberDropped), and when C has returned, the unwinding goes on. So a callback that frees something is to free it
/// outside [`enter`](crate::enter), or when `enter` gives an error. `drop` returns when all of that is done; if a destructor waits, it
/// blocks the thread.
///
/// A forgotten fiber (`std::mem::forget`) keeps its stack for ever.
///
/// # Panics
/// Polling it gives its closure's panic. So does polling it when it has finished, or from inside itself.
#[must_use = "a fiber does nothing until it is polled"]
pub struct Fiber<T: 'static> {
    /// None when it has ended.
    coroutine: Option<Coroutine<T>>,
}

/// How a fiber is to be made; from [`Fiber::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing by itself"]
pub struct Builder {
    pub(crate) stack_size: Option<usize>,
    pub(crate) name: Option<Box<str>>,
}

impl Builder {
    /// The bytes of stack that the fiber has at least, in place of the process's [`fiber_stack`](crate::Config::fiber_stack).
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// A name for messages.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into_boxed_str());
        self
    }

    /// A fiber that will run `f`.
    ///
    /// # Errors
    /// When there is no memory for its stack; `f` is dropped.
    pub fn build<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Result<Fiber<T>, Refusal> {
        let stack = take_stack(self.stack_size)?;
        // SAFETY: the stack was just taken, and is given back by `Fiber::end`.
        Ok(Fiber { coroutine: Some(unsafe { Coroutine::new(stack, self.name, f) }) })
    }
}

impl Fiber<()> {
    /// Starts from the defaults.
    ///
    /// ```
    /// let fiber = upcall::Fiber::builder().stack_size(1 << 20).name("deep").build(|| 6 * 7)?;
    /// assert_eq!(upcall::wait(fiber), 42);
    /// # Ok::<(), upcall::Refusal>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<T: 'static> Fiber<T> {
    /// A fiber that will run `f`.
    ///
    /// # Panics
    /// When there is no memory for its stack; [`Builder::build`] gives an error instead.
    pub fn new(f: impl FnOnce() -> T + 'static) -> Self {
        match Builder::default().build(f) {
            Ok(fiber) => fiber,
            Err(refusal) => panic!("Fiber::new: {refusal}"),
        }
    }

    /// The coroutine, which is suspended.
    fn coroutine(&mut self) -> &mut Coroutine<T> {
        match &mut self.coroutine {
            None => panic!("a fiber was polled after it had finished"),
            Some(coroutine) if coroutine.runs() => {
                panic!("{} was polled from inside itself", described(coroutine.stack()))
            }
            Some(coroutine) => coroutine,
        }
    }

    /// Goes on with it; its end may be a panic. Inline for the reason that `wait` is.
    #[inline(always)]
    pub(crate) fn poll_result(&mut self, context: &mut Context<'_>) -> Poll<std::thread::Result<T>> {
        let hot = Hot::here();
        let coroutine = self.coroutine();
        let stack = coroutine.stack();
        hot.check_same_thread(stack.mark.get(), || described(stack));
        let upcall = hot.upcall.get();
        let beneath = hot.stack_at(stack_pointer());
        stack.beneath_resumer.set(beneath.map_or(0, |resumer| resumer.system_sp.load(Relaxed)));
        hot.pooled.set(stack);
        let outer = hot.fiber.replace(stack);
        let ended = coroutine.resume(context);
        hot.check_same_thread(stack.mark.get(), || described(stack));
        hot.fiber.set(outer);
        hot.upcall.set(upcall);
        match ended {
            None => Poll::Pending,
            Some(result) => {
                self.end();
                Poll::Ready(result)
            }
        }
    }

    /// What its code has at hand, if it has begun and not ended.
    pub(crate) fn running(&self) -> Option<&Running> {
        self.coroutine.as_ref()?.stack().fiber()
    }

    /// Gives the stack back, on which nothing runs any more.
    #[inline]
    fn end(&mut self) {
        let Some(coroutine) = self.coroutine.take() else { return };
        let stack = coroutine.stack();
        drop(coroutine);
        let hot = Hot::here();
        hot.put_back_fibers(stack);
        record::detach_if_exiting(hot);
    }

    /// Where it waits, if it does.
    pub(crate) fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.running()?.waits_at()
    }
}

impl<T: 'static> Future for Fiber<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.poll_result(context).map(|result| result.unwrap_or_else(|payload| resume_unwind(payload)))
    }
}

impl<T: 'static> Drop for Fiber<T> {
    fn drop(&mut self) {
        let Some(coroutine) = &self.coroutine else { return };
        let stack = coroutine.stack();
        Hot::here().check_same_thread(stack.mark.get(), || described(stack));
        if coroutine.runs() {
            fatal(format_args!(
                "{} was dropped from inside itself: its frames are in use and cannot be unwound",
                described(stack)
            ));
        }
        if !coroutine.started() {
            return self.end();
        }
        let Some(fiber) = self.running() else { return };
        fiber.cancelled.set(true);
        // One resumption unwinds it, unless it is in a section that cannot be unwound before something has happened.
        wait::park_until(
            Hot::here(),
            stack_pointer(),
            Location::caller(),
            Function::of::<Self>(),
            &mut |context| self.poll_result(context).is_ready(),
        );
    }
}

impl<T: 'static> fmt::Debug for Fiber<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.coroutine {
            None => "finished",
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

/// A stack for a fiber, with `size` bytes at least.
fn take_stack(size: Option<usize>) -> Result<&'static Control, Refusal> {
    let sp = stack_pointer();
    let hot = Hot::here();
    record::attach_if_new(hot, sp);
    let spare = if size.is_none() { hot.take_spare_for_fiber() } else { None };
    match spare {
        Some(stack) => Ok(stack),
        None => from_pool(hot, size.unwrap_or(settings().fiber_stack), sp, Purpose::Fiber),
    }
}

/// The fiber on a stack, as messages name it.
fn described(stack: &Control) -> String {
    match stack.fiber().and_then(|fiber| fiber.name.as_deref()) {
        Some(name) => format!("fiber \"{name}\""),
        None => format!("a fiber (unnamed, on the stack below {:#x})", stack.base()),
    }
}
