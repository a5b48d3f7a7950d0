//! Comparisons of what came out with what should have, counted for the whole run.

use std::fmt::Debug;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

static PASSED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Counts a success, or says on stderr what is off.
pub fn equal<T: PartialEq + Debug>(what: &str, got: T, expected: T) {
    if got == expected {
        PASSED.fetch_add(1, Relaxed);
    } else {
        FAILED.fetch_add(1, Relaxed);
        eprintln!("WRONG: {what}: got {got:?}, expected {expected:?}");
    }
}

/// [`equal`], for something that may as well be more.
pub fn at_least(what: &str, got: usize, least: usize) {
    equal(what, got.min(least), least);
}

/// The last line, and whether the process succeeded.
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
