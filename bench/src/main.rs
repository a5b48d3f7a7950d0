//! Measures upcalls and downcalls beside a bare call, `catch_unwind`, `stacker` and Go, and waits
//! beside Go, tokio and may.
//!
//! - `bench` runs the C programs of `c/` and `waiting/c/` and writes `results.md` and
//!   `results.json`.
//! - `bench instructions` counts the instructions of warm calls. It fails if a call exceeds its
//!   limit in `instructions/`.

mod go;
mod instructions;
mod machine;
mod programs;
mod report;
mod rows;
mod scene;
mod waits;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// A failure, described in a sentence.
type Failure = Box<dyn Error>;

/// The folder of this crate, with its sources and its results.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(),
        ["instructions"] => instructions::check(),
        _ => Err("usage: bench [instructions]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Failure> {
    let go = go::find();
    let archive = go.as_deref().map(go::build).transpose()?;
    let results = scene::run_all(archive.as_deref())?;
    let rows = rows::rows(&results);
    let (waits, runs_of_waits) = waits::run_all(archive.as_deref())?;
    let mut machine = machine::describe(go.as_deref());
    for (what, (runs, quiet)) in [("runs", results.runs), ("runs of waiting", runs_of_waits)] {
        machine.push((what, format!("{runs}, {quiet} of them on a quiet core")));
    }
    let markdown = report::markdown(&machine, &rows, &waits);
    print!("{markdown}");
    std::fs::write(folder().join("results.md"), markdown)?;
    std::fs::write(folder().join("results.json"), report::json(&machine, &rows, &waits))?;
    Ok(())
}
