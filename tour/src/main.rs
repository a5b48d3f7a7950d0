//! A tour of upcall: SQLite, a C library, calls SQL functions written in Rust, and these query
//! SQLite in turn.
//!
//! The main thread, other threads and coroutines on undescribed stacks ask the same questions.
//! Every answer is compared with plain Rust's. Begin with `functions.rs`, then read `sqlite.rs`.
//!
//! One of the functions waits for a web server. In `fetching.rs`, a hundred connections call it at
//! a time, on two threads.

mod check;
mod fetching;
mod functions;
mod http;
mod job;
mod parts;
mod probe;
mod scenes;
mod speed;
mod sqlite;
mod sys;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use check::equal;
use scenes::SCENES;

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

fn main() -> ExitCode {
    let began = Instant::now();
    let config = upcall::config().min_stack(probe::MIN_STACK).workers(fetching::WORKERS);
    config.install().expect("nothing was called yet");
    upcall::report::install().expect("the system takes handlers");
    silence_expected_panics();

    table::print_head();
    for scene in &SCENES {
        match (scene.play)() {
            Ok(reports) => table::print_row(scene.name, &reports),
            Err(reason) => table::print_skipped(scene.name, reason),
        }
    }

    match scenes::snapshot() {
        Ok(tree) => {
            println!("\nSELECT snapshot(), asked by nested SQL while two coroutines take turns:\n\n{tree}")
        }
        Err(reason) => println!("\nsnapshot: SKIPPED, {reason}"),
    }

    table::print_runs(&fetching::run());
    println!("\na fiber aborted in the middle of such a statement; SQLite: {}\n", fetching::cut_short());
    equal("the end of the workers", upcall::shutdown(Duration::from_secs(10)).is_ok(), true);
    check::conclude(began.elapsed())
}

/// Shortens the messages of expected panics to one line. Other panics are reported as before.
fn silence_expected_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match info.payload().downcast_ref::<String>() {
        Some(message) if message == job::EXPECTED_PANIC => eprintln!("(a panic as expected: {message})"),
        _ => report(info),
    }));
}
