//! Fibers on a thread driven by the host.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::Location;

use stackbounds::stack_pointer;

use super::queue::Queue;
use super::spawned::{self, JoinHandle, Refused};
use crate::drop_guards::drop_ignoring_panics;
use crate::fiber::{Builder, Fibers};
use crate::sync::{Event, Held, Lock, Word, hold, in_own_code};
use crate::sys;
use crate::thread::{Attached, ThreadState};

/// The run queue of one thread driven by the host; its fibers need not be `Send`.
///
/// The fibers run when the host says so, on its own event loop (libuv, GLib, PHP, a game's),
/// without any other thread.
///
/// ```
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// let runtime = FIBERS.local_runtime()?;
/// let (sender, receiver) = async_channel::bounded(1);
/// // An upcall starts a fiber, and returns to C at once …
/// let fiber = runtime.spawn_local(move || upcall::wait(receiver.recv()).unwrap());
/// runtime.run_ready(usize::MAX);
/// sender.try_send(42).unwrap();
/// // … and when `runtime.fd()` is readable, the host's loop calls:
/// runtime.run_ready(usize::MAX);
/// assert!(fiber.is_finished());
/// assert_eq!(fiber.join().unwrap(), 42);
/// # Ok::<(), upcall::LocalRuntimeError>(())
/// ```
///
/// A [`wait`](crate::wait) that blocks the thread runs these fibers meanwhile, so waiting for one
/// of them is no deadlock.
///
/// Dropping the runtime drops its unfinished fibers in their waits, one after the other.
/// **Deadlock:** a destructor in one of them must not wait for another one. If the runtime is
/// dropped inside one of its fibers, all this is deferred until the thread has left its fibers.
pub struct LocalRuntime {
    queue: &'static Queue,
    of_one_thread: PhantomData<*const ()>,
}

/// Queues of ended runtimes, with their descriptors: a late waker of a fiber may still signal them.
static UNUSED: Lock<Vec<&'static Queue>> = Lock::new(Vec::new());

fn unused() -> Held<Vec<&'static Queue>> {
    hold(&UNUSED)
}

/// The lock, for forks.
pub(super) fn lock_word() -> &'static Word {
    UNUSED.word()
}

/// In the child of a fork: forgets the unused queues. Threads missing here may
/// hold the queues' locks, and the descriptors are the parent's.
pub(super) fn forget_unused() {
    unused().clear();
}

impl Fibers {
    /// Makes a [`LocalRuntime`] for the calling thread.
    ///
    /// # Errors
    /// If the thread has one, or is one of upcall's workers. If there is no file descriptor.
    pub fn local_runtime(self) -> Result<LocalRuntime, LocalRuntimeError> {
        LocalRuntime::new()
    }

    /// Adds a fiber to the calling thread's [`LocalRuntime`].
    ///
    /// It does the same as [`LocalRuntime::spawn_local`], for upcalls on a thread whose runtime
    /// somebody else made, the C side for instance. On a thread without one, `f` is dropped, and
    /// joining the handle returns an error with this reason.
    ///
    /// From other threads, see [`local_runtime_handle`](Self::local_runtime_handle).
    #[track_caller]
    pub fn spawn_local<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        match Queue::own_local() {
            None => JoinHandle::refused(Refused::NoRuntime),
            Some(queue) => {
                ManuallyDrop::new(LocalRuntime { queue, of_one_thread: PhantomData }).spawn_local(f)
            }
        }
    }

    /// The handle of the calling thread's [`LocalRuntime`], if it has one: see
    /// [`LocalRuntime::handle`].
    pub fn local_runtime_handle(self) -> Option<LocalRuntimeHandle> {
        let queue = Queue::own_local()?;
        Some(ManuallyDrop::new(LocalRuntime { queue, of_one_thread: PhantomData }).handle())
    }
}

impl LocalRuntime {
    /// Makes the calling thread's runtime. The caller must have a [`Fibers`] token, since the
    /// runtime makes fibers without asking for one.
    pub(crate) fn new() -> Result<Self, LocalRuntimeError> {
        if Queue::own().is_some() {
            return Err(LocalRuntimeError::ThreadHasOne);
        }
        let unused = unused().pop();
        let queue = match unused {
            Some(queue) => queue,
            None => Queue::new(Some(Event::new().map_err(LocalRuntimeError::NoDescriptor)?)),
        };
        let thread = ThreadState::current();
        let _attached = Attached::new(thread, stack_pointer());
        queue.begin(thread.parker());
        queue.allow_operations();
        // Keeps the record for as long as the queue has the thread's parker.
        thread.add_user();
        thread.set_nested_executor(Some(super::run_one));
        thread.set_at_end(Some(end_fibers));
        queue.open();
        Ok(Self { queue, of_one_thread: PhantomData })
    }

    /// Adds a fiber. It runs in a later [`run_ready`](Self::run_ready) or wait of this thread,
    /// never inside this call.
    #[track_caller]
    pub fn spawn_local<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.add(None, Location::caller(), f)
    }

    /// Adds a fiber like [`spawn_local`](Self::spawn_local), with a name and a stack size of its
    /// own.
    #[track_caller]
    pub fn spawn_local_with<T: 'static>(
        &self,
        builder: Builder,
        f: impl FnOnce() -> T + 'static,
    ) -> JoinHandle<T> {
        self.add(Some(Box::new(builder)), Location::caller(), f)
    }

    fn add<T: 'static>(
        &self,
        builder: Option<Box<Builder>>,
        caller: &'static Location<'static>,
        f: impl FnOnce() -> T + 'static,
    ) -> JoinHandle<T> {
        // SAFETY: the home is the calling thread's queue, since a `LocalRuntime` stays on its
        // thread.
        let (runnable, handle) = unsafe { spawned::new(Some(self.queue), builder, caller, f) };
        self.queue.push(runnable);
        handle
    }

    /// Makes a handle for other threads to add fibers. It does not keep the runtime from ending.
    ///
    /// ```
    /// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
    /// let runtime = FIBERS.local_runtime()?;
    /// let handle = runtime.handle();
    /// let other = std::thread::spawn(move || handle.spawn(|| 42).join());
    /// while !other.is_finished() {
    ///     // The host's loop waits until `runtime.fd()` is readable.
    ///     runtime.run_ready(usize::MAX);
    /// }
    /// assert_eq!(other.join().unwrap().unwrap(), 42);
    /// # Ok::<(), upcall::LocalRuntimeError>(())
    /// ```
    pub fn handle(&self) -> LocalRuntimeHandle {
        // Has the thread's end close the queue, if the runtime is never dropped.
        let ends = AT_THREAD_END.try_with(|_| ()).is_err();
        LocalRuntimeHandle { queue: self.queue, number: if ends { 0 } else { self.queue.number() } }
    }

    /// Runs ready fibers, each until it waits or ends; returns how many it ran, at most `max`.
    ///
    /// When nothing remains to be run, [`fd`](Self::fd) is not readable any more. Fibers that
    /// become ready meanwhile are run too. If some are always ready, yielding in turn, only `max`
    /// ends the call. C code called by one of the fibers may call this: then the other fibers run.
    /// While the thread is panicking, in a destructor, it runs none.
    pub fn run_ready(&self, max: usize) -> usize {
        if std::thread::panicking() {
            return 0;
        }
        let mut ran = 0;
        drop_ignoring_panics(|| {
            while ran < max {
                let Some(runnable) = self.queue.pop() else { break };
                ran += 1;
                self.queue.run(runnable);
            }
        });
        let event = self.event();
        if !self.queue.is_ready() {
            self.queue.shrink();
            event.clear();
            if self.queue.is_ready_for_sure() {
                event.signal();
            }
        }
        ran
    }

    sys::with_descriptors! {
        /// A file descriptor, readable (`POLLIN`, level-triggered) whenever a fiber can run.
        ///
        /// It may be readable when none can, after a wait of this thread ran the ready fibers. The
        /// next [`run_ready`](Self::run_ready) ends that. Poll the descriptor only: do not read
        /// from it or close it.
        pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.event().event()
        }
    }

    sys::with_event_objects! {
        /// An event object, signalled whenever a fiber can run. It is reset by hand, not by a wait.
        ///
        /// It may be signalled when none can, after a wait of this thread ran the ready fibers. The
        /// next [`run_ready`](Self::run_ready) ends that. Wait for the object only: do not reset it
        /// or close it.
        pub fn event_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
            self.event().event()
        }
    }

    /// An alias of the runtime. Somebody else drops the runtime itself.
    pub(crate) fn alias(&self) -> ManuallyDrop<Self> {
        ManuallyDrop::new(LocalRuntime { queue: self.queue, of_one_thread: PhantomData })
    }

    pub(crate) fn event(&self) -> &Event {
        self.queue.event.as_ref().expect("upcall: a LocalRuntime's queue has a descriptor")
    }
}

/// Adds fibers to a [`LocalRuntime`] from any thread; [`LocalRuntime::handle`] gives it.
#[derive(Clone)]
pub struct LocalRuntimeHandle {
    queue: &'static Queue,
    /// The number of the runtime. Its queue may serve another runtime later.
    number: usize,
}

impl LocalRuntimeHandle {
    /// Adds a fiber, to run on the runtime's thread.
    ///
    /// It runs in the thread's next [`run_ready`](LocalRuntime::run_ready), or in a wait that
    /// blocks the thread. [`fd`](LocalRuntime::fd) becomes readable for it.
    ///
    /// If the runtime ends before the fiber does, joining the fiber is an error,
    /// [`is_aborted`](crate::JoinError::is_aborted). If the runtime or its thread has ended
    /// already, or is in the process from which this one was forked, `f` is dropped here. Joining
    /// is then an error, [`is_refused`](crate::JoinError::is_refused).
    #[track_caller]
    pub fn spawn<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.add(None, Location::caller(), f)
    }

    /// Adds a fiber like [`spawn`](Self::spawn), with a name and a stack size of its own.
    #[track_caller]
    pub fn spawn_with<T: Send + 'static>(
        &self,
        builder: Builder,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.add(Some(Box::new(builder)), Location::caller(), f)
    }

    fn add<T: Send + 'static>(
        &self,
        builder: Option<Box<Builder>>,
        caller: &'static Location<'static>,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        if in_own_code() {
            return JoinHandle::refused(Refused::Interrupts);
        }
        // SAFETY: this function's bounds make the closure and its result `Send`.
        let (runnable, handle) = unsafe { spawned::new(Some(self.queue), builder, caller, f) };
        match self.queue.push_if_open(self.number, runnable) {
            Ok(()) => handle,
            Err(runnable) => {
                drop(handle);
                drop(runnable);
                JoinHandle::refused(Refused::RuntimeEnded)
            }
        }
    }

    /// Whether the runtime takes no more fibers. If it still takes some, it may end at any time.
    pub fn has_ended(&self) -> bool {
        !self.queue.is_open(self.number)
    }
}

impl fmt::Debug for LocalRuntimeHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LocalRuntimeHandle").field("has_ended", &self.has_ended()).finish_non_exhaustive()
    }
}

thread_local! {
    /// Used by threads that have given a handle away.
    static AT_THREAD_END: AtThreadEnd = const { AtThreadEnd };
}

/// Ends the fibers of a runtime that its thread never dropped. Fibers added by other threads would
/// never run, and their joiners would wait for ever.
struct AtThreadEnd;

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        if Queue::own_local().is_some() {
            end_fibers();
        }
    }
}

sys::with_descriptors! {
    impl std::os::fd::AsFd for LocalRuntime {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.fd()
        }
    }
}

sys::with_event_objects! {
    impl std::os::windows::io::AsHandle for LocalRuntime {
        fn as_handle(&self) -> std::os::windows::io::BorrowedHandle<'_> {
            self.event_handle()
        }
    }
}

/// Unwinds the fibers of a thread that ends, or calls `exit`. The runtime stays.
fn end_fibers() {
    let Some(queue) = Queue::own() else { return };
    block_waits_of_exiting_fiber();
    queue.close_when_left(|_| ThreadState::current().set_nested_executor(Some(super::run_one)));
}

/// Makes the waits of the calling fiber block the thread from now on. If C calls `exit` on a
/// fiber's stack, nobody will resume the fiber.
fn block_waits_of_exiting_fiber() {
    if let Some(fiber) = ThreadState::current().fiber_at(stack_pointer()) {
        fiber.abandoned.set(true);
    }
}

/// Drops the runtime of a thread that ends, or calls `exit`.
pub(crate) fn drop_at_exit(runtime: LocalRuntime) {
    block_waits_of_exiting_fiber();
    drop(runtime);
}

impl Drop for LocalRuntime {
    fn drop(&mut self) {
        self.queue.close_when_left(|queue| {
            let thread = ThreadState::current();
            let _attached = Attached::already(thread);
            queue.end();
            thread.set_at_end(None);
            if let Some(event) = &queue.event {
                event.clear();
            }
            thread.remove_user();
            unused().push(queue);
        });
    }
}

impl fmt::Debug for LocalRuntime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LocalRuntime").field("event", &self.event().event()).finish_non_exhaustive()
    }
}

/// The reason why there is no [`LocalRuntime`].
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalRuntimeError {
    /// The thread has one, or is one of upcall's workers.
    ThreadHasOne,
    /// The system gave no file descriptor.
    NoDescriptor(io::Error),
}

impl fmt::Display for LocalRuntimeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThreadHasOne => out.write_str(
                "the thread has a LocalRuntime already, or is one of upcall's workers: use that one, or another thread",
            ),
            Self::NoDescriptor(error) => {
                write!(out, "there is no file descriptor for a LocalRuntime's event: {error}")
            }
        }
    }
}

impl std::error::Error for LocalRuntimeError {}
