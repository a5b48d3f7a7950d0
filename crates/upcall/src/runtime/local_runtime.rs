//! Fibers on a thread that the host drives.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::sync::{Mutex, MutexGuard};

use stackbounds::stack_pointer;

use super::event::Event;
use super::queue::Queue;
use super::task::{self, JoinHandle, Refused};
use crate::fiber::Builder;
use crate::quiet::quietly;
use crate::sync::lock;
use crate::thread::{Hot, KeptRecord, record};

/// The run queue of one thread that the host drives: its fibers need not be `Send`, and run when the host says so, on its own
/// event loop (libuv, GLib, PHP, a game's), without any other thread.
///
/// ```
/// let runtime = upcall::LocalRuntime::new()?;
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
/// A [`wait`](crate::wait) that blocks the thread runs its fibers meanwhile, so waiting for one of them is no deadlock.
///
/// Dropping it drops the fibers that have not ended, where they wait, one after the other; a destructor in one of them that waits for another waits for
/// ever. From inside one of them all that is put off until the thread has left them.
pub struct LocalRuntime {
    queue: &'static Queue,
    of_one_thread: PhantomData<*const ()>,
}

/// Queues of runtimes that are gone, with their descriptors: who woke a fiber late may still signal them.
static UNUSED: Mutex<Vec<&'static Queue>> = Mutex::new(Vec::new());

pub(super) fn unused() -> MutexGuard<'static, Vec<&'static Queue>> {
    lock(&UNUSED)
}

/// In the child of a fork: their locks may be held by threads that are not here, and their descriptors are the parent's.
pub(super) fn forget_unused() {
    unused().clear();
}

impl LocalRuntime {
    /// The calling thread's runtime.
    ///
    /// # Errors
    /// When the thread has one, or is one of upcall's workers; when there is no file descriptor.
    pub fn new() -> Result<Self, LocalRuntimeError> {
        if Queue::own().is_some() {
            return Err(LocalRuntimeError::ThreadHasOne);
        }
        let unused = unused().pop();
        let queue = match unused {
            Some(queue) => queue,
            None => Queue::new(Some(Event::new().map_err(LocalRuntimeError::NoDescriptor)?)),
        };
        let hot = Hot::here();
        record::attach_if_new(hot, stack_pointer());
        queue.begin(hot.parker());
        // For as long as the queue has the thread's parker.
        std::mem::forget(KeptRecord::of(hot));
        hot.set_meanwhile(Some(super::run_meanwhile));
        Ok(Self { queue, of_one_thread: PhantomData })
    }

    /// Adds a fiber, which runs in a later [`run_ready`](Self::run_ready) or wait of this thread, never inside this call.
    #[track_caller]
    pub fn spawn_local<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.add(None, Location::caller(), f)
    }

    /// The same for a fiber with a name and stack of its own.
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
        // SAFETY: the home is this thread's: a LocalRuntime stays on it.
        let (runnable, handle) = unsafe { task::new(Some(self.queue), builder, caller, f) };
        self.queue.push(runnable);
        handle
    }

    /// Runs fibers that are ready, each until it waits or ends, `max` of them at most, and returns how many it ran. When nothing is left
    /// to run, [`fd`](Self::fd) is not readable any more.
    ///
    /// A fiber that becomes ready meanwhile is run too: where some are always ready, yielding in turn, `max` is what ends the call. May be
    /// called from inside one of the fibers, by C code that one called: then the others run.
    pub fn run_ready(&self, max: usize) -> usize {
        let mut ran = 0;
        quietly(|| {
            while ran < max {
                let Some(runnable) = self.queue.pop() else { break };
                ran += 1;
                self.queue.run(runnable);
            }
        });
        let event = self.event();
        if !self.queue.is_ready() {
            self.queue.shrink();
            event.clear(ran == 0);
            if self.queue.is_ready_for_sure() {
                event.signal();
            }
        }
        ran
    }

    /// A file descriptor that is readable (`POLLIN`, level-triggered) whenever something can run. It may be readable when nothing can,
    /// after a wait of this thread ran what could; the next [`run_ready`](Self::run_ready) ends that.
    ///
    /// To be polled only: not read, not closed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event().fd()
    }

    fn event(&self) -> &Event {
        self.queue.event.as_ref().expect("upcall: a LocalRuntime's queue has a descriptor")
    }
}

/// Adds a fiber to the calling thread's [`LocalRuntime`], as [`LocalRuntime::spawn_local`] does; for upcalls on a thread whose runtime
/// somebody else made, the C side for instance.
///
/// On a thread without one, `f` is dropped, and joining the handle is an error that says so.
#[track_caller]
pub fn spawn_local<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Queue::own().filter(|own| own.event.is_some()) {
        None => JoinHandle::refused(Refused::NoRuntime),
        Some(queue) => ManuallyDrop::new(LocalRuntime { queue, of_one_thread: PhantomData }).spawn_local(f),
    }
}

impl AsFd for LocalRuntime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// Drops the runtime of a thread that ends, or calls `exit`. If C does so on a fiber's stack, nobody will resume the fiber: its waits block the thread from now on.
pub(crate) fn drop_at_exit(runtime: LocalRuntime) {
    if let Some(fiber) = Hot::here().fiber_at(stack_pointer()) {
        fiber.entered.set(fiber.entered.get() + 1);
    }
    drop(runtime);
}

impl Drop for LocalRuntime {
    fn drop(&mut self) {
        self.queue.close_when_left(|queue| {
            let hot = Hot::here();
            queue.end();
            if let Some(event) = &queue.event {
                event.clear(true);
            }
            KeptRecord::end(hot);
            unused().push(queue);
            record::detach_if_exiting(hot);
        });
    }
}

impl fmt::Debug for LocalRuntime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LocalRuntime").field("fd", &self.fd()).finish_non_exhaustive()
    }
}

/// Why there is no [`LocalRuntime`].
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
