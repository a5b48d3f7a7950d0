//! A tour of upcall: SQLite, a C library, calls SQL functions written in Rust, which ask SQLite in turn.
//!
//! The same questions are asked from the main thread, from other threads and from coroutines, whose stacks nobody
//! described to us. Every answer is compared with plain Rust's. To read first: `functions.rs`, then `sqlite.rs`.

mod check;
mod functions;
mod job;
mod parts;
mod probe;
mod scenes;
mod speed;
mod sqlite;
mod sys;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use scenes::SCENES;

fn main() -> ExitCode {
    let began = Instant::now();
    upcall::config().min_stack(probe::MIN_STACK).install().expect("nothing was called yet");
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
