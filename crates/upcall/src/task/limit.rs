//! The number of running tasks, and its limit.

use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::Poll;

use super::watchers;
use crate::config::settings;

/// The number of started operations that have not ended.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A place among the running tasks. Its drop gives it back.
pub(super) struct Place {
    /// Without a limit, an operation that is ready at once is not counted.
    is_counted: bool,
}

impl Place {
    /// Keeps the place until the end of an operation gives it back.
    pub fn keep(self) {
        if !self.is_counted {
            RUNNING.fetch_add(1, SeqCst);
        }
        std::mem::forget(self);
    }
}

impl Drop for Place {
    #[inline]
    fn drop(&mut self) {
        if self.is_counted {
            give_back();
        }
    }
}

/// Takes a place among the running tasks. Returns the limit if there is no place.
#[inline]
pub(super) fn take() -> Result<Place, usize> {
    let limit = settings().running_tasks;
    if limit == 0 {
        return Ok(Place { is_counted: false });
    }
    let running = RUNNING.fetch_add(1, SeqCst);
    if running < limit {
        return Ok(Place { is_counted: true });
    }
    RUNNING.fetch_sub(1, SeqCst);
    Err(limit)
}

/// Waits for a place, and takes it.
pub(super) async fn wait() -> Place {
    let mut waiter = watchers::Room::new();
    poll_fn(|context| {
        waiter.register(context.waker());
        // A place given back before this is seen here.
        take().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Gives a place back.
pub(super) fn give_back() {
    // In the child of a fork, operations of this thread may end that `forget` has not counted.
    let _ = RUNNING.fetch_update(SeqCst, Relaxed, |running| running.checked_sub(1));
    watchers::tell_room();
}

/// The number of running tasks.
pub(super) fn running() -> usize {
    RUNNING.load(Relaxed)
}

/// In the child of a fork: forgets the tasks of the parent.
pub(super) fn forget() {
    RUNNING.store(0, Relaxed);
}
