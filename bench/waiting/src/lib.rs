//! What waits: upcall's fibers, tokio's tasks and may's coroutines, each doing the same work. The Rust library that `c/main.c` links.
//!
//! It is not one with the library of the other figures: what else calls upcall's functions has a part in how those are compiled.

mod coroutines;
mod fibers;
mod tasks;

use std::ffi::{CStr, c_char, c_double, c_int, c_long};
use std::time::Instant;

/// Fibers, tasks or coroutines: one kind of what waits. Each function does its work `count` times and returns the nanoseconds that it took.
trait Subject {
    /// Spawns one that does nothing, and joins it.
    fn spawn_and_join(count: usize) -> f64;

    /// The same, joining when a [`BATCH`] has been spawned.
    fn spawn_and_join_in_batches(count: usize) -> f64;

    /// Yields, two of them in turn.
    fn yields(count: usize) -> f64;

    /// Sends to another one, which sends back, through channels of one place.
    fn round_trips(count: usize) -> f64;

    /// Spawns `count` that wait for ever, and returns when all do.
    fn park(count: usize) -> f64;

    /// [`SLEEPERS`] of them call `usleep(1000)` `count` times each, where they run; `None` where that holds up all others.
    fn blocking_calls(_count: usize) -> Option<f64> {
        None
    }

    /// The same on threads that the runtime has for that.
    fn blocking_calls_elsewhere(_count: usize) -> Option<f64> {
        None
    }
}

/// How many are spawned before they are joined.
const BATCH: usize = 1000;

/// How many make blocking calls.
const SLEEPERS: usize = 64;

/// Has `subject` do what `what` names, `count` times; returns the nanoseconds that it took, or -1 if it cannot do that.
///
/// # Safety
/// Both are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bench_waiting(
    subject: *const c_char,
    what: *const c_char,
    count: c_long,
) -> c_double {
    // SAFETY: the caller's promise.
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

/// The sizes of the batches that make up `count`.
fn batches(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(BATCH).map(move |before| BATCH.min(count - before))
}

/// The nanoseconds that `f` takes.
fn timed(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64
}

fn sleep_in_c() {
    // SAFETY: no pointers.
    unsafe { libc::usleep(1000) };
}

/// An exchange with a fiber, task or coroutine that answers, which is made at the first.
macro_rules! exported {
    ($($name:ident: $exchange:path,)*) => {$(
        /// Sends to another one, and receives its answer.
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
