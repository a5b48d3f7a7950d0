//! Timers: a thread wakes the sleepers.
//!
//! Wakers of other executors are these executors' code, and may block. During a call of one,
//! another thread stands by. If the call takes long, that thread serves from then on.
//!
//! The threads block all signals, except during calls of such wakers: a waker may start threads,
//! and they inherit the mask.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::tame_waker::is_ours;
use crate::fiber::interrupted::OnInterrupt;
use crate::fiber::wait::{Needs, wait_as};
use crate::function::Function;
use crate::process::{Mask, fork, with_signal_mask, with_signals_blocked};
use crate::sync::{self, Condition, Held, Lock, Word, in_own_code};
use crate::thread::waker;

/// How long the thread stays without sleepers.
const IDLE: Duration = Duration::from_secs(5);
/// How long a sleeper sleeps between two looks, if no thread could be started to wake it.
const WITHOUT_THREAD: Duration = Duration::from_millis(1);
/// How long a waker may take before another thread serves.
const LONG: Duration = Duration::from_millis(10);

/// A sleeper's due time, and a number to tell equal times apart.
type Key = (Instant, u64);

struct Timers {
    sleepers: BTreeMap<Key, Sleeper>,
    numbered: u64,
    /// The number of the serving thread, if there is one.
    server: Option<u64>,
    servers: u64,
    /// Since when the serving thread is in a waker that may block.
    calls_since: Option<Instant>,
    standby: Standby,
    /// The signal mask of the thread that started the serving one, for other executors' wakers.
    mask: Option<Mask>,
}

struct Sleeper {
    waker: Waker,
    /// Whether the waker is ours, so that it does not block.
    is_ours: bool,
}

/// The thread that serves when a waker blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standby {
    None,
    /// It wakes by itself, and looks.
    Looks,
    /// It sleeps until it is told of a call.
    Rests,
}

static TIMERS: Lock<Timers> = Lock::new(Timers {
    sleepers: BTreeMap::new(),
    numbered: 0,
    server: None,
    servers: 0,
    calls_since: None,
    standby: Standby::None,
    mask: None,
});
/// Notified when a new sleeper is due before all others.
static EARLIER: Condition = Condition::new();
/// Notified when a waker is called that may block.
static CALLS: Condition = Condition::new();

fn lock() -> Held<Timers> {
    sync::hold(&TIMERS)
}

/// A future that is ready from a given time on; made by [`timer`].
///
/// One thread, started at the first use, wakes all sleepers. They may be of any executor.
#[derive(Debug)]
#[must_use = "a timer does nothing until it is waited for"]
pub struct Timer {
    /// `None` for never.
    until: Option<Instant>,
    key: Option<Key>,
}

/// Makes a future that is ready `duration` from now, for a [`wait`](crate::wait) for several
/// things.
///
/// ```
/// use std::time::Duration;
///
/// let (_sender, receiver) = async_channel::bounded::<i32>(1);
/// let number = async { receiver.recv().await.ok() };
/// let nothing = async {
///     upcall::timer(Duration::from_millis(1)).await;
///     None
/// };
/// assert_eq!(upcall::wait(futures_lite::future::or(number, nothing)), None);
/// ```
///
/// A timer with a `duration` beyond the clock's range, such as `Duration::MAX`, is never ready.
pub fn timer(duration: Duration) -> Timer {
    Timer { until: Instant::now().checked_add(duration), key: None }
}

/// Waits for `future` like [`wait`](crate::wait), but for `duration` at most.
///
/// ```
/// use std::time::Duration;
///
/// let (_sender, receiver) = async_channel::bounded::<i32>(1);
/// assert!(upcall::timeout(Duration::from_millis(1), receiver.recv()).is_err());
/// ```
///
/// # Errors
/// If the future is not ready by then. It is polled at least once, and has been dropped when this
/// returns. Dropping it does not undo its work: the future's author tells whether it may be dropped
/// half-way.
///
/// # Panics
/// In the same cases as [`wait`](crate::wait).
#[track_caller]
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let caller = Location::caller();
    let limited = async {
        let (mut future, mut timer) = (pin!(future.into_future()), timer(duration));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => Pin::new(&mut timer).poll(context).map(|()| Err(Elapsed(()))),
        })
        .await
    };
    wait_as(limited, Function::of::<F>(), caller, Needs::Anything, OnInterrupt::Unwinds)
        .unwrap_or_else(|stopped| stopped.unwind())
}

/// The error of a [`timeout`]: the future was not ready in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("what was waited for was not ready in time")
    }
}

impl std::error::Error for Elapsed {}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        if until <= Instant::now() {
            return Poll::Ready(());
        }
        if in_own_code() {
            // A signal handler has interrupted code that may hold the lock, so this sleeps on the
            // spot.
            thread::sleep(until.saturating_duration_since(Instant::now()));
            return Poll::Ready(());
        }
        let (waker, is_ours) = (context.waker().clone(), is_ours(context.waker()));
        let mut timers = lock();
        if timers.server.is_none() {
            drop(timers);
            fork::before_first_thread();
            timers = lock();
        }
        if timers.server.is_none() && timers.start().is_err() {
            // Without a thread to wake it, this timer is polled again and again, with everything
            // else in the same wait.
            drop(timers);
            thread::sleep(until.saturating_duration_since(Instant::now()).min(WITHOUT_THREAD));
            waker::wake(waker);
            return Poll::Pending;
        }
        let number = timers.numbered;
        let key = *self.key.get_or_insert((until, number));
        timers.numbered += u64::from(key.1 == number);
        let before = timers.sleepers.insert(key, Sleeper { waker, is_ours });
        if timers.sleepers.first_key_value().is_some_and(|(first, _)| *first == key) {
            EARLIER.notify_one();
        }
        drop(timers);
        waker::discard(before.map(|sleeper| sleeper.waker));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The waker is dropped after the lock has been given back: its drop may be anybody's code.
        let sleeper = self.key.and_then(|key| lock().sleepers.remove(&key));
        waker::discard(sleeper.map(|sleeper| sleeper.waker));
    }
}

impl Timers {
    /// Starts a serving thread.
    fn start(&mut self) -> io::Result<()> {
        let server = self.next_server();
        self.mask = Some(start(move || serve(server, lock()))?);
        self.server = Some(server);
        self.calls_since = None;
        Ok(())
    }

    fn next_server(&mut self) -> u64 {
        self.servers += 1;
        self.servers
    }

    /// Takes the due sleepers, up to the first one with a waker that may block.
    fn take_due(&mut self, now: Instant) -> Vec<Sleeper> {
        let mut due = Vec::new();
        while let Some(first) = self.sleepers.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
            if due.last().is_some_and(|sleeper| !sleeper.is_ours) {
                break;
            }
        }
        due
    }

    /// Prepares for the call of a waker that may block.
    fn begin_call(&mut self, now: Instant) {
        self.calls_since = Some(now);
        match self.standby {
            Standby::Looks => {}
            Standby::Rests => CALLS.notify_one(),
            // Without a standby thread, the next call tries again.
            Standby::None if start(stand_by).is_err() => {}
            Standby::None => self.standby = Standby::Looks,
        }
    }
}

/// Starts a thread; returns the calling thread's signal mask.
fn start(f: impl FnOnce() + Send + 'static) -> io::Result<Mask> {
    let builder = thread::Builder::new().name("upcall-timer".to_owned());
    with_signals_blocked(|mask| builder.spawn(f).map(|_| *mask))
}

/// The life of the serving thread.
fn serve(server: u64, mut timers: Held<Timers>) {
    loop {
        let now = Instant::now();
        let due = timers.take_due(now);
        if !due.is_empty() {
            let may_block = due.iter().any(|sleeper| !sleeper.is_ours);
            if may_block {
                timers.begin_call(now);
            }
            let mask = timers.mask.filter(|_| may_block);
            drop(timers);
            let wake = || due.into_iter().for_each(|sleeper| waker::wake(sleeper.waker));
            match mask {
                Some(mask) => with_signal_mask(&mask, wake),
                None => wake(),
            }
            timers = lock();
            if timers.server != Some(server) {
                return;
            }
            timers.calls_since = None;
            continue;
        }
        let next = timers.sleepers.first_key_value().map(|((at, _), _)| at.saturating_duration_since(now));
        let timed_out;
        (timers, timed_out) = timers.wait_for(&EARLIER, next.unwrap_or(IDLE));
        if next.is_none() && timed_out && timers.sleepers.is_empty() {
            timers.server = None;
            return;
        }
    }
}

/// The life of the standby thread. It serves once a waker takes long.
fn stand_by() {
    let mut timers = lock();
    loop {
        let remaining =
            timers.calls_since.map(|since| (since + LONG).saturating_duration_since(Instant::now()));
        if remaining == Some(Duration::ZERO) {
            let server = timers.next_server();
            timers.server = Some(server);
            timers.calls_since = None;
            timers.standby = Standby::None;
            return serve(server, timers);
        }
        timers.standby = if remaining.is_some() { Standby::Looks } else { Standby::Rests };
        let timed_out;
        (timers, timed_out) = timers.wait_for(&CALLS, remaining.unwrap_or(IDLE));
        if remaining.is_none() && timed_out && timers.calls_since.is_none() {
            timers.standby = Standby::None;
            return;
        }
    }
}

/// The lock, for forks.
pub(super) fn lock_word() -> &'static Word {
    TIMERS.word()
}

/// Whether any of the threads exists.
pub(super) fn has_thread() -> bool {
    let timers = lock();
    timers.server.is_some() || timers.standby != Standby::None
}

/// In the child of a fork: forgets the threads, since they are not here.
pub(super) fn forget_thread() {
    let mut timers = lock();
    (timers.server, timers.calls_since, timers.standby) = (None, None, Standby::None);
}

/// In the child of a fork: starts the thread at once if there are sleepers. Some may be of this
/// thread.
pub(super) fn renew_thread() {
    let mut timers = lock();
    if timers.server.is_none() && !timers.sleepers.is_empty() {
        // Without a thread, the next sleeper tries again.
        let _ = timers.start();
    }
}
