//! Measures what upcalls and downcalls cost, side by side with a bare call, `catch_unwind`, `stacker` and Go.
//!
//! - `bench` runs the C programs of `c/` and writes `results.md` and `results.json`;
//! - `bench instructions` counts the instructions of warm calls, and fails when one takes more than `instructions.txt` allows.

mod go;
mod instructions;
mod machine;
mod programs;
mod report;
mod rows;
mod scene;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

/// Whatever went wrong, said in a sentence.
type Failure = Box<dyn Error>;

/// The folder of this crate: its sources are read and its results are written here.
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
    let results = scene::run_all(go.as_deref())?;
    let rows = rows::rows(&results);
    let mut machine = machine::describe(go.as_deref());
    let (runs, quiet) = results.runs;
    machine.push(("runs", format!("{runs}, {quiet} of them on a quiet core")));
    let markdown = report::markdown(&machine, &rows);
    print!("{markdown}");
    std::fs::write(folder().join("results.md"), markdown)?;
    std::fs::write(folder().join("results.json"), report::json(&machine, &rows))?;
    Ok(())
}
