//! The model test: random programs of a C host with threads, coroutines and fibers.
//!
//! Each program runs against the library, and its result must be that of a plain model
//! (`machine.rs`).
//!
//! `MODEL_SEED` is the seed of the first program, and `MODEL_STEPS` the number of steps to take.
//! The test shrinks and shows a failing program. `MODEL_SEED=… MODEL_STEPS=1` runs one program
//! alone. `MODEL_WITHOUT_JUMPS`, for AddressSanitizer, leaves `longjmp` out.

mod generate;
#[path = "../program/mod.rs"]
#[allow(dead_code, unused_macros)] // shared by all tests of C programs
mod host;
mod machine;
mod programs;
mod run;
mod shrink;
mod steps;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use programs::Program;

/// The number of programs run by one process.
const BATCH: u64 = 200;

/// The number in a variable `MODEL_*`, or `default` if it is not set.
fn asked(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() { default } else { text.parse().unwrap_or_else(|_| panic!("{name} is a number")) }
}

/// Returns whether the test cannot predict results on this platform. Reports the skip.
fn skipped() -> bool {
    if cfg!(stackbounds_no_query) {
        println!("SKIPPED: where a panic arrives depends on the thread's own stack, which is not known here");
    }
    cfg!(stackbounds_no_query)
}

#[test]
fn what_happens_is_what_must() {
    if skipped() {
        return;
    }
    let (seed, steps) = (asked("MODEL_SEED", 1), asked("MODEL_STEPS", 20_000));
    let host = host::Program::built("model", host::Link::Static);
    let began = Instant::now();
    let (taken, failed) = (Mutex::new((seed, 0)), AtomicBool::new(false));
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !failed.load(Relaxed) {
                    let Some(programs) = next(&taken, steps) else { break };
                    if let Err(found) = run::run(&host.path, &programs, 20) {
                        failed.store(true, Relaxed);
                        failure.lock().unwrap().get_or_insert((programs, found));
                    }
                }
            });
        }
    });
    if let Some((programs, failure)) = failure.into_inner().unwrap() {
        panic!("{}", told(&host.path, programs, failure));
    }
    let (after, taken) = taken.into_inner().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "seeds {seed} to {}: {taken} steps as they must be, {:.0} a second",
        after - 1,
        taken as f64 / seconds
    );
}

#[test]
fn coroutines_that_go_on_on_another_thread_are_stopped() {
    if skipped() {
        return;
    }
    let seed = asked("MODEL_SEED", 1);
    let host = host::Program::built("model", host::Link::Static);
    for program in (seed..).filter_map(generate::moved).take(10) {
        let stopped =
            run::run(&host.path, std::slice::from_ref(&program), 20).expect_err("the process is stopped");
        assert!(
            host::aborted(stopped.status) && stopped.says.contains("came back on"),
            "{}\n{program}",
            stopped.says
        );
    }
}

/// The next programs to run, until enough steps have been taken.
fn next(taken: &Mutex<(u64, usize)>, steps: u64) -> Option<Vec<Program>> {
    let mut programs = Vec::new();
    while (programs.len() as u64) < BATCH {
        let seed = {
            let mut taken = taken.lock().unwrap();
            if taken.1 as u64 >= steps {
                break;
            }
            taken.0 += 1;
            taken.0 - 1
        };
        let program = generate::program(seed);
        taken.lock().unwrap().1 += program.step_count();
        programs.push(program);
    }
    (!programs.is_empty()).then_some(programs)
}

/// Shrinks failing programs, and describes the failure.
fn told(host: &Path, mut programs: Vec<Program>, failure: run::Failure) -> String {
    programs.truncate(failure.before + 1);
    let seed = programs[failure.before].seed;
    // The order of the threads differs from run to run.
    let fails = |programs: &[Program]| (0..3).any(|_| run::run(host, programs, 1).is_err());
    let alone = vec![programs[failure.before].clone()];
    let programs = if fails(&alone) { alone } else { programs };
    let shrunk = shrink::shrink(programs, fails);
    let again = (0..20).find_map(|_| run::run(host, &shrunk, 1).err());
    let shown: String = shrunk.iter().map(|program| format!("seed {}\n{program}", program.seed)).collect();
    let says = again.map_or("nothing in 20 runs".to_owned(), |failure| failure.says);
    format!("the program of seed {seed} failed: {}\nshrunk:\n{shown}which fails with: {says}", failure.says)
}
