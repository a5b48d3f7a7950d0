//! Threads for calls that block.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use super::sys::with_signals_blocked;
use crate::fiber::wait;
use crate::process::fork;
use crate::quiet::Quiet;
use crate::sync;

/// Threads at most; further calls wait for one.
const MOST: usize = 512;
/// How long a thread stays without work.
const IDLE: Duration = Duration::from_secs(5);

type Job = async_task::Runnable;

struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    numbered: usize,
    closed: bool,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { jobs: VecDeque::new(), threads: 0, idle: 0, numbered: 0, closed: false });
/// There is a job, or no thread is needed any more.
static CHANGED: Condvar = Condvar::new();
/// A thread has ended.
static ENDED: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Pool> {
    sync::lock(&POOL)
}

/// Runs `f`, which blocks, on a thread kept for that, and waits for it here: in a fiber, only the fiber waits.
///
/// ```
/// let text = upcall::spawn(|| upcall::blocking(|| std::fs::read_to_string("Cargo.toml"))).join().unwrap();
/// assert!(text.is_ok());
/// ```
///
/// There are as many threads as calls at one time, but 512; they serve no signals and end when they have been idle for 5 seconds. Once a call
/// has begun it runs to its end, also if the fiber that waits for it is dropped. After [`shutdown`](crate::shutdown), and when no thread can be
/// started, `f` runs where it is called.
///
/// # Panics
/// When `f` does, with its payload; and in the child of a fork that is made while the call runs.
#[track_caller]
pub fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let f = Quiet::new(f);
    let call = async { Quiet::new(catch_unwind(AssertUnwindSafe(|| f.into_inner()()))) };
    let (job, result) = async_task::spawn(call, add);
    job.schedule();
    let epoch = fork::epoch();
    let mut result = result.fallible();
    let ended = wait(poll_fn(|context| match Pin::new(&mut result).poll(context) {
        Poll::Pending if fork::epoch() != epoch => Poll::Ready(None),
        polled => polled,
    }));
    match ended.map(Quiet::into_inner) {
        Some(Ok(value)) => value,
        Some(Err(payload)) => resume_unwind(payload),
        None => panic!(
            "the call that `blocking` waits for runs only in the process that this one was forked from"
        ),
    }
}

/// Holds what waits to be run as it is.
pub(super) fn hold_lock() -> impl Sized + 'static {
    lock()
}

/// In the child of a fork: the threads are not here, and their jobs are the parent's.
pub(super) fn forget_threads() {
    let mut pool = lock();
    pool.jobs.drain(..).for_each(std::mem::forget);
    (pool.threads, pool.idle) = (0, 0);
}

/// Has a thread run the job.
fn add(job: Job) {
    let mut pool = lock();
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
        with_signals_blocked(|| builder.spawn(serve))?;
        self.numbered += 1;
        self.threads += 1;
        Ok(())
    }
}

/// A thread's life.
fn serve() {
    let mut pool = lock();
    loop {
        if let Some(job) = pool.jobs.pop_front() {
            drop(pool);
            job.run();
            pool = lock();
            continue;
        }
        if pool.closed {
            break;
        }
        pool.idle += 1;
        let (woken, waited) = CHANGED.wait_timeout(pool, IDLE).unwrap_or_else(PoisonError::into_inner);
        pool = woken;
        pool.idle -= 1;
        if waited.timed_out() && pool.jobs.is_empty() {
            break;
        }
    }
    pool.threads -= 1;
    ENDED.notify_all();
}

/// Ends the threads, once their jobs are done; says how many are left at the end of `timeout`.
pub(super) fn shutdown(timeout: Duration) -> usize {
    let mut pool = lock();
    pool.closed = true;
    CHANGED.notify_all();
    let (pool, _) = ENDED
        .wait_timeout_while(pool, timeout, |pool| pool.threads != 0)
        .unwrap_or_else(PoisonError::into_inner);
    pool.threads
}
