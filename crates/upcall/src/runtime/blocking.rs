//! Threads for blocking calls.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use super::hooks;
use super::shutdown::remaining_until;
use super::tame_waker::with_tame;
use crate::drop_guards::{IgnoreDropPanic, drop_ignoring_panics};
use crate::fiber::wait::wait_for_ours;
use crate::process::{block_signals, fork, with_signals_blocked};
use crate::sync::{self, Condition, Held, Lock, Word, in_own_code};
use crate::sys;

/// The limit for threads. Further calls wait for one.
const MOST: usize = 512;
/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(5);

type Job = async_task::Runnable;

struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    /// The number of ending threads.
    leaving: usize,
    idle: usize,
    numbered: usize,
    closed: bool,
}

static POOL: Lock<Pool> =
    Lock::new(Pool { jobs: VecDeque::new(), threads: 0, leaving: 0, idle: 0, numbered: 0, closed: false });
/// Notified when there is a job, or no thread is needed any more.
static CHANGED: Condition = Condition::new();
/// Notified when a thread has ended.
static ENDED: Condition = Condition::new();

fn lock() -> Held<Pool> {
    sync::hold(&POOL)
}

/// Runs `f`, a blocking call, on a separate thread, and waits for it. In a fiber, only the fiber
/// waits.
///
/// ```
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// let read = || std::fs::read_to_string("Cargo.toml");
/// let text = FIBERS.spawn(move || upcall::blocking(read)).join().unwrap();
/// assert!(text.is_ok());
/// ```
///
/// There are as many threads as simultaneous calls, but at most 512. A thread ends after 5 idle
/// seconds. A call that has begun runs to its end, even if the fiber waiting for it is dropped.
/// After [`shutdown`](crate::shutdown), or if no thread can be started, `f` runs on the calling
/// thread.
///
/// `f` has the caller's signal mask, as on a thread made by the caller. Threads and child processes
/// started by `f` inherit it.
///
/// # Panics
/// If `f` panics, with its payload. Also in the child of a fork made while the call runs.
#[track_caller]
pub fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let f = IgnoreDropPanic::new(f);
    let mask = sys::mask();
    let call = async move {
        sys::set_mask(&mask);
        IgnoreDropPanic::new(catch_unwind(AssertUnwindSafe(|| f.into_inner()())))
    };
    let (job, result) = async_task::spawn(call, add);
    job.schedule();
    let epoch = fork::epoch();
    let mut result = result.fallible();
    let ended = wait_for_ours(poll_fn(|context| {
        match with_tame(context, |context| Pin::new(&mut result).poll(context)) {
            Poll::Pending if fork::epoch() != epoch => Poll::Ready(None),
            polled => polled,
        }
    }));
    match ended.map(IgnoreDropPanic::into_inner) {
        Some(Ok(value)) => value,
        Some(Err(payload)) => resume_unwind(payload),
        None => panic!(
            "the call that `blocking` waits for runs only in the process that this one was forked from"
        ),
    }
}

/// The lock, for forks.
pub(super) fn lock_word() -> &'static Word {
    POOL.word()
}

/// Whether any of the threads exists.
pub(super) fn has_threads() -> bool {
    lock().threads != 0
}

/// In the child of a fork: forgets the threads, since they are not here, and their jobs, since
/// these are the parent's.
pub(super) fn forget_threads() {
    let mut pool = lock();
    pool.jobs.drain(..).for_each(std::mem::forget);
    (pool.threads, pool.leaving, pool.idle) = (0, 0, 0);
}

/// Has a thread run the job.
fn add(job: Job) {
    if in_own_code() {
        // A signal handler has interrupted code that may hold the lock.
        job.run();
        return;
    }
    let mut pool = lock();
    if pool.threads == 0 {
        drop(pool);
        fork::before_first_thread();
        pool = lock();
    }
    let served = pool.idle > pool.jobs.len() || pool.threads == MOST;
    if !pool.closed && (served || pool.start().is_ok()) {
        pool.jobs.push_back(job);
        drop(pool);
        CHANGED.notify_one();
    } else {
        drop(pool);
        job.run();
    }
}

impl Pool {
    fn start(&mut self) -> std::io::Result<()> {
        let builder = thread::Builder::new().name(format!("upcall-blocking-{}", self.numbered));
        with_signals_blocked(|_| builder.spawn(serve))?;
        self.numbered += 1;
        self.threads += 1;
        Ok(())
    }
}

/// The life of a thread. While it has no job, it blocks all signals.
fn serve() {
    hooks::thread_begins();
    let mut pool = lock();
    loop {
        if let Some(job) = pool.jobs.pop_front() {
            drop(pool);
            drop_ignoring_panics(|| _ = job.run());
            block_signals();
            pool = lock();
            continue;
        }
        if pool.closed {
            break;
        }
        pool.idle += 1;
        let timed_out;
        (pool, timed_out) = pool.wait_for(&CHANGED, IDLE);
        pool.idle -= 1;
        if timed_out && pool.jobs.is_empty() {
            break;
        }
    }
    pool.threads = pool.threads.saturating_sub(1);
    pool.leaving += 1;
    drop(pool);
    hooks::thread_ends();
    let mut pool = lock();
    pool.leaving = pool.leaving.saturating_sub(1);
    ENDED.notify_all();
}

/// Ends the threads once their jobs are done; returns how many remain at `deadline`.
pub(super) fn shutdown(deadline: Option<Instant>) -> usize {
    let mut pool = lock();
    pool.closed = true;
    CHANGED.notify_all();
    while pool.threads + pool.leaving != 0 {
        let remaining = remaining_until(deadline);
        if remaining.is_zero() {
            break;
        }
        pool = pool.wait_for(&ENDED, remaining).0;
    }
    pool.threads + pool.leaving
}
