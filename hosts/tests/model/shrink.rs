//! Shrinks failing programs.

use std::time::{Duration, Instant};

use super::programs::Program;

/// The time limit for shrinking.
const LIMIT: Duration = Duration::from_secs(60);

/// Removes programs and then choices from `programs`, as long as `fails` returns true for the rest.
pub fn shrink(programs: Vec<Program>, fails: impl Fn(&[Program]) -> bool) -> Vec<Program> {
    let end = Instant::now() + LIMIT;
    let mut programs = without(programs, end, |fewer| fails(fewer));
    for i in 0..programs.len() {
        let program = programs[i].clone();
        let choices = without(program.choices.clone(), end, |fewer| {
            let mut smaller = programs.clone();
            smaller[i].choices = fewer.to_vec();
            fails(&smaller)
        });
        programs[i].choices = choices;
        // Removes threads without choices.
        while programs[i].threads.len() > 1 {
            let mut smaller = programs.clone();
            let last = smaller[i].threads.len() - 1;
            smaller[i].threads.pop();
            smaller[i].choices.retain(|(thread, _)| *thread != last);
            if smaller[i].names_no_thread_from(last) && fails(&smaller) {
                programs = smaller;
            } else {
                break;
            }
        }
    }
    programs
}

/// Removes parts of `all` as long as `fails` returns true for the rest.
///
/// The first parts have half its length. They get shorter and shorter.
fn without<T: Clone>(mut all: Vec<T>, end: Instant, fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut part = all.len() / 2;
    while part > 0 {
        let mut from = 0;
        let before = all.len();
        while from < all.len() && Instant::now() < end {
            let mut fewer = all.clone();
            fewer.drain(from..(from + part).min(all.len()));
            if fails(&fewer) {
                all = fewer;
            } else {
                from += part;
            }
        }
        if part > 1 || all.len() == before {
            part /= 2;
        }
    }
    all
}
