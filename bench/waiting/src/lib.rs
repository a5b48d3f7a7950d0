//! Waiters doing the same work: upcall's fibers, tokio's tasks and may's coroutines. `c/main.c`
//! links this Rust library.
//!
//! It is separate from the library of the other figures. Other users of upcall's functions in one
//! library would change their compiled code.

mod coroutines;
mod fibers;
mod tasks;

use std::ffi::{CStr, c_char, c_double, c_int, c_long};
use std::time::Instant;

/// A kind of waiter: fibers, tasks or coroutines.
///
/// Each function does its work `count` times and returns the nanoseconds taken.
trait Subject {
    /// Spawns an empty waiter, and joins it.
    fn spawn_and_join(count: usize) -> f64;

    /// Spawns empty waiters, and joins them after each [`BATCH`].
    fn spawn_and_join_in_batches(count: usize) -> f64;

    /// Yields in two waiters, in turn.
    fn yields(count: usize) -> f64;

    /// Sends to a partner, and receives its answer, through channels of one place.
    fn round_trips(count: usize) -> f64;

    /// Spawns `count` waiters that wait for ever, and returns when all of them wait.
    fn park(count: usize) -> f64;

    /// Has [`SLEEPERS`] waiters each call `usleep(1000)` `count` times in place. `None` if this
    /// would hold up all others.
    fn blocking_calls(_count: usize) -> Option<f64> {
        None
    }

    /// Has [`SLEEPERS`] waiters each call `usleep(1000)` `count` times on the runtime's threads for
    /// blocking calls.
    fn blocking_calls_elsewhere(_count: usize) -> Option<f64> {
        None
    }
}

/// The number of waiters spawned before they are joined.
const BATCH: usize = 1000;

/// The number of waiters with blocking calls.
const SLEEPERS: usize = 64;

/// Has `subject` do the work named `what`, `count` times.
///
/// Returns the nanoseconds taken, or -1 if `subject` cannot do this.
///
/// # Safety
/// `subject` and `what` are C strings, readable during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bench_waiting(
    subject: *const c_char,
    what: *const c_char,
    count: c_long,
) -> c_double {
    // SAFETY: the caller guarantees two readable C strings.
    let [subject, what] = [subject, what].map(|name| unsafe { CStr::from_ptr(name) }.to_str());
    let (Ok(what), Ok(count)) = (what, count.try_into()) else { return -1.0 };
    let took = match subject {
        Ok("fibers") => run::<fibers::Fibers>(what, count),
        Ok("tasks") => run::<tasks::Tasks>(what, count),
        Ok("coroutines") => run::<coroutines::Coroutines>(what, count),
        _ => None,
    };
    took.unwrap_or(-1.0)
}

fn run<S: Subject>(what: &str, count: usize) -> Option<f64> {
    match what {
        "spawn" => Some(S::spawn_and_join(count)),
        "batches" => Some(S::spawn_and_join_in_batches(count)),
        "yield" => Some(S::yields(count)),
        "channel" => Some(S::round_trips(count)),
        "park" => Some(S::park(count)),
        "blocking" => S::blocking_calls(count),
        "elsewhere" => S::blocking_calls_elsewhere(count),
        _ => None,
    }
}

/// The sizes of the batches with a sum of `count`.
fn batches(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(BATCH).map(move |before| BATCH.min(count - before))
}

/// The nanoseconds taken by `f`.
fn timed(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64
}

fn sleep_in_c() {
    // SAFETY: `usleep` takes no pointers.
    unsafe { libc::usleep(1000) };
}

/// Declares C functions for an exchange with a partner. The first call of each makes the partner.
macro_rules! exported {
    ($($name:ident: $exchange:path,)*) => {$(
        /// Sends to the partner, and receives its answer.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            if $exchange() == Some(()) { 0 } else { -1 }
        }
    )*};
}

exported! {
    bench_exchange: fibers::exchange_with_worker,
    bench_exchange_own: fibers::exchange_with_own_thread,
    bench_exchange_tasks: tasks::exchange,
    bench_exchange_coroutines: coroutines::exchange,
}
