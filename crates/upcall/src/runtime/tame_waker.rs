//! Tame wakers: they never panic, for futures that would abort the process if their waker panicked.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, RawWakerVTable, Wake, Waker};

use crate::fiber::coroutines::Taken;
use crate::thread::waker::{catching, discard};
use crate::thread::{Parker, ThreadState};

/// Whether the waker is ours: these neither panic nor block. Ours are the wakers of threads and of
/// the host's coroutines, and those of our executor running the calling fiber, or polling the
/// calling operation.
#[inline]
pub(super) fn is_ours(waker: &Waker) -> bool {
    Parker::made(waker)
        || Taken::made(waker)
        || ThreadState::current().running_fiber().is_some_and(|fiber| fiber.is_woken_by(waker))
        || OPERATION.get() == Some(identity(waker))
}

/// What tells wakers apart, as `Waker::will_wake` does.
type Identity = (*const (), *const RawWakerVTable);

fn identity(waker: &Waker) -> Identity {
    (waker.data(), waker.vtable())
}

thread_local! {
    /// The waker of the operation polled by this thread.
    static OPERATION: Cell<Option<Identity>> = const { Cell::new(None) };
}

/// The poll of an operation by our executor, until the drop.
pub(super) struct OperationPoll(Option<Identity>);

impl OperationPoll {
    pub fn begin(waker: &Waker) -> Self {
        Self(OPERATION.replace(Some(identity(waker))))
    }
}

impl Drop for OperationPoll {
    fn drop(&mut self) {
        OPERATION.set(self.0);
    }
}

/// Calls `poll` with a tame waker. The future polled there would abort the process
/// if its waker panicked.
#[inline]
pub(super) fn with_tame<R>(context: &mut Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
    if is_ours(context.waker()) {
        return poll(context);
    }
    let tame = tame(context.waker());
    poll(&mut Context::from_waker(&tame))
}

/// Wraps a waker so as never to panic. Only the clone made here may panic.
#[cold]
fn tame(waker: &Waker) -> Waker {
    struct Tame(Option<Waker>);

    impl Wake for Tame {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            if let Some(waker) = &self.0 {
                catching(|| waker.wake_by_ref());
            }
        }
    }

    impl Drop for Tame {
        fn drop(&mut self) {
            discard(self.0.take());
        }
    }

    Waker::from(Arc::new(Tame(Some(waker.clone()))))
}
