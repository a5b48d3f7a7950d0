//! Measures tasks beside the same work by others, and prints a table.
//!
//! Each library is linked to the C program of `c/`. The programs of a row run at the same time and
//! measure in turn, a round each. A ratio is the median over the rounds of one figure against its
//! neighbour in the same round.

mod programs;
mod rounds;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use programs::Library;
use rounds::{Round, alternating, median, once};

/// A failure, described in a sentence.
type Failure = Box<dyn Error>;

const ROUNDS: usize = 41;
/// The number of waiting tasks.
const WAITING: u32 = 100_000;
/// A round is quiet if its probe takes at most this many times the least.
const QUIET: f64 = 1.1;
/// The bytes of the future that waits.
const FUTURE: f64 = 64.0;

/// The folder of this crate.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("benchtasks: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A row of the table of times.
struct Row {
    what: &'static str,
    /// The scene, as `c/main.c` has it, for upcall and for the others.
    scene: [&'static str; 2],
    /// Against what the ratios are.
    base: Base,
    /// The aim for upcall: the ratio is at most this.
    aim: Option<f64>,
    figure: fn(&Round) -> f64,
}

enum Base {
    Hand,
    /// Two hand-overs between two threads, the other asleep.
    HandOvers,
}

const ROWS: [Row; 7] = [
    one("ready at once: start, completion, value, free", "one_by_one 0", Some(0.5)),
    one("… started 1,000 at a time", "batches 0", Some(0.5)),
    one("ready at the second poll, one after the other", "one_by_one 1", Some(1.1)),
    one("… started 1,000 at a time", "batches 1", None),
    Row {
        what: "ready at once, but on a worker (`later`), one after the other",
        scene: ["one_by_one 2", "one_by_one 0"],
        base: Base::Hand,
        aim: Some(1.1),
        figure: |round| round.figure,
    },
    Row {
        what: "cancel a waiting one, until its completion is called",
        scene: ["cancels"; 2],
        base: Base::HandOvers,
        aim: Some(1.0),
        figure: |round| round.second,
    },
    Row {
        what: "… until the cancelling thread knows",
        scene: ["cancels"; 2],
        base: Base::HandOvers,
        aim: None,
        figure: |round| round.figure,
    },
];

const fn one(what: &'static str, scene: &'static str, aim: Option<f64>) -> Row {
    Row { what, scene: [scene; 2], base: Base::Hand, aim, figure: |round| round.figure }
}

fn measure() -> Result<(), Failure> {
    let mut programs = BTreeMap::new();
    for library in Library::ALL {
        match programs::build(library) {
            Ok(program) => drop(programs.insert(library, program)),
            Err(failure) => eprintln!("SKIPPED {}: {failure}", library.name()),
        }
    }
    println!(
        "# The cost of tasks\n\nMedians and ratios of one run of `cargo run --release`; see README.md.\n"
    );
    println!("- processor: {}", processor());
    println!("- load at the beginning: {}", load());
    let mut probes = Vec::new();
    times(&programs, &mut probes)?;
    memory(&programs)?;
    let quiet = QUIET * probes.iter().copied().fold(f64::INFINITY, f64::min);
    let quiet = probes.iter().filter(|probe| **probe <= quiet).count();
    println!("\nLoad at the end: {}; {quiet} of {} rounds on a quiet core.", load(), probes.len());
    Ok(())
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{}, {cores} cores", name.map_or("unknown", |(_, name)| name.trim()))
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}

fn times(programs: &BTreeMap<Library, PathBuf>, probes: &mut Vec<f64>) -> Result<(), Failure> {
    let measured: Vec<_> = programs.iter().filter(|(library, _)| **library != Library::Spawn).collect();
    println!("\n| measured | cores | aim | {} |", names(&measured).join(" | "));
    println!("|---|---|---|{}", "---|".repeat(measured.len()));
    let hand = &programs[&Library::Hand];
    for row in &ROWS {
        for cores in [1, 2] {
            let mut run = vec![(hand.as_path(), format!("{cores} hand_overs"))];
            let able = measured.iter().filter(|(library, _)| library.runs(row.scene[1]));
            for (library, program) in able.clone() {
                let [ours, theirs] = row.scene;
                let scene = if library.is_ours() { ours } else { theirs };
                run.push((program.as_path(), format!("{cores} {scene}")));
            }
            let all = alternating(&run, ROUNDS)?;
            probes.extend(all.iter().flatten().map(|round| round.probe));
            let hand_overs = &all[0];
            let base: Vec<f64> = match row.base {
                Base::Hand => all[1].iter().map(row.figure).collect(),
                Base::HandOvers => hand_overs.iter().map(|round| round.figure).collect(),
            };
            let mut cells = vec!["–".to_owned(); measured.len()];
            for ((library, _), rounds) in able.zip(&all[1..]) {
                let column = measured.iter().position(|(other, _)| other == library).unwrap_or(0);
                cells[column] = cell(rounds, &base, row.figure);
            }
            let aim = row.aim.map_or(String::new(), |aim| format!("≤ {aim} ×"));
            println!("| {} | {cores} | {aim} | {} |", row.what, cells.join(" | "));
            if let (Base::HandOvers, Some(_)) = (&row.base, row.aim) {
                let awake = median(hand_overs.iter().map(|round| round.second));
                println!(
                    "| two hand-overs by futex; with both awake | {cores} | | {}; {} {}|",
                    nanoseconds(median(base)),
                    nanoseconds(awake),
                    "| ".repeat(measured.len() - 1)
                );
            }
        }
    }
    Ok(())
}

fn names(measured: &[(&Library, &PathBuf)]) -> Vec<&'static str> {
    measured.iter().map(|(library, _)| library.name()).collect()
}

/// The median of the ratios in each round, and the median of the figures.
fn cell(rounds: &[Round], base: &[f64], figure: fn(&Round) -> f64) -> String {
    let ratio = median(rounds.iter().zip(base).map(|(round, base)| figure(round) / base));
    format!("{ratio:.2} × ({})", nanoseconds(median(rounds.iter().map(figure))))
}

fn nanoseconds(number: f64) -> String {
    if number < 1000.0 { format!("{number:.0} ns") } else { format!("{:.1} µs", number / 1000.0) }
}

fn memory(programs: &BTreeMap<Library, PathBuf>) -> Result<(), Failure> {
    println!("\n| memory of one of {WAITING} waiting | of the process | allocated | beside the future |");
    println!("|---|---|---|---|");
    let mut all = Vec::new();
    for (library, program) in programs {
        all.push((library, once(program, &format!("2 memory {WAITING}"))?));
    }
    let Some((_, base)) = all.iter().find(|(library, _)| **library == Library::Spawn).cloned() else {
        return Ok(());
    };
    for (library, round) in all {
        let of = |number: f64, base: f64| format!("{:.2} × ({number:.0} B)", number / base);
        let allocated = match round.second {
            // Only Rust's allocations are counted.
            _ if matches!(library, Library::Go | Library::CxxAsync | Library::CoAwait) => "– | –".to_owned(),
            bytes => format!("{} | {:.0} B", of(bytes, base.second), bytes - FUTURE),
        };
        println!("| {} | {} | {allocated} |", library.name(), of(round.figure, base.figure));
    }
    Ok(())
}
