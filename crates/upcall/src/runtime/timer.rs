//! Timers: a thread that wakes who sleeps.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::sys::with_signals_blocked;
use crate::sync;

/// How long the thread stays when nobody sleeps.
const IDLE: Duration = Duration::from_secs(5);

/// When, and which of those at that time.
type Key = (Instant, u64);

struct Timers {
    sleepers: BTreeMap<Key, Waker>,
    numbered: u64,
    has_thread: bool,
}

static TIMERS: Mutex<Timers> =
    Mutex::new(Timers { sleepers: BTreeMap::new(), numbered: 0, has_thread: false });
/// Somebody is to be woken earlier than all others.
static EARLIER: Condvar = Condvar::new();

fn lock() -> MutexGuard<'static, Timers> {
    sync::lock(&TIMERS)
}

/// Ready from a time on.
pub(super) struct Sleep {
    /// `None` for never.
    until: Option<Instant>,
    key: Option<Key>,
}

impl Sleep {
    pub fn new(duration: Duration) -> Self {
        Self { until: Instant::now().checked_add(duration), key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        if until <= Instant::now() {
            return Poll::Ready(());
        }
        let mut timers = lock();
        if !timers.has_thread && timers.start().is_err() {
            // Without a thread to wake this one, it sleeps where it is.
            drop(timers);
            thread::sleep(until.saturating_duration_since(Instant::now()));
            return Poll::Ready(());
        }
        let number = timers.numbered;
        let key = *self.key.get_or_insert((until, number));
        timers.numbered += u64::from(key.1 == number);
        timers.sleepers.insert(key, context.waker().clone());
        if timers.sleepers.first_key_value().is_some_and(|(first, _)| *first == key) {
            EARLIER.notify_one();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // The waker is dropped when the lock has been given back: that may be anybody's code.
        let _waker = self.key.and_then(|key| lock().sleepers.remove(&key));
    }
}

impl Timers {
    fn start(&mut self) -> std::io::Result<()> {
        with_signals_blocked(|| thread::Builder::new().name("upcall-timer".to_owned()).spawn(serve))?;
        self.has_thread = true;
        Ok(())
    }
}

/// The thread's life.
fn serve() {
    let mut timers = lock();
    loop {
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(first) = timers.sleepers.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        if !due.is_empty() {
            drop(timers);
            due.into_iter().for_each(Waker::wake);
            timers = lock();
            continue;
        }
        let next = timers.sleepers.first_key_value().map(|((at, _), _)| at.saturating_duration_since(now));
        let (woken, waited) =
            EARLIER.wait_timeout(timers, next.unwrap_or(IDLE)).unwrap_or_else(PoisonError::into_inner);
        timers = woken;
        if next.is_none() && waited.timed_out() && timers.sleepers.is_empty() {
            timers.has_thread = false;
            return;
        }
    }
}

/// Holds the list of sleepers as it is.
pub(super) fn hold_lock() -> impl Sized + 'static {
    lock()
}

/// In the child of a fork: the thread is not here. It is needed at once if some sleep, who may be this thread's.
pub(super) fn forget_thread() {
    let mut timers = lock();
    timers.has_thread = false;
    if !timers.sleepers.is_empty() {
        // Without one, the next sleeper tries again.
        let _ = timers.start();
    }
}
