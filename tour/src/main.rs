//! A tour of upcall: SQLite, a C library, calls SQL functions written in Rust, which ask SQLite in turn.
//!
//! The same questions are asked from the main thread, from other threads and from coroutines, whose stacks nobody
//! described to us. Every answer is compared with plain Rust's. To read first: `functions.rs`, then `sqlite.rs`.
//!
//! One of the functions waits for a web server: `fetching.rs` has a hundred connections call it at a time, on two threads.

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

fn main() -> ExitCode {
    let began = Instant::now();
    let config = upcall::config().min_stack(probe::MIN_STACK).workers(fetching::WORKERS);
    config.install().expect("nothing was called yet");
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

/// Panics that a scene provokes get one line; all others are reported as ever.
fn silence_expected_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match info.payload().downcast_ref::<String>() {
        Some(message) if message == job::EXPECTED_PANIC => eprintln!("(a panic as expected: {message})"),
        _ => report(info),
    }));
}
