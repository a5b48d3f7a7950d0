//! Comparisons of results with expected values, counted for the whole run.

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Counts a success, or prints the difference to stderr.
pub fn equal<T: PartialEq + Debug>(what: &str, got: T, expected: T) {
    if got == expected {
        PASSED.fetch_add(1, Relaxed);
    } else {
        FAILED.fetch_add(1, Relaxed);
        eprintln!("WRONG: {what}: got {got:?}, expected {expected:?}");
    }
}

/// Counts a success if `got` is at least `least`, like [`equal`].
pub fn at_least(what: &str, got: usize, least: usize) {
    equal(what, got.min(least), least);
}

/// Prints the last line. Returns the exit code.
pub fn conclude(took: Duration) -> ExitCode {
    let (passed, failed) = (PASSED.load(Relaxed), FAILED.load(Relaxed));
    if failed == 0 {
        println!("all {passed} checks passed in {} ms", took.as_millis());
        ExitCode::SUCCESS
    } else {
        eprintln!("{failed} of {} checks failed", passed + failed);
        ExitCode::FAILURE
    }
}
