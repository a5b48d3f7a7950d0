//! The rows of the second table: the cost of waiting, beside Go, tokio and may.

use std::path::Path;
use std::process::Command;

use crate::programs::{Library, Measured, build};
use crate::rows::Unit::{self, Bytes, Ns, Times};
use crate::scene::{Counts, repeat};
use crate::{Failure, machine};

/// The number of runs of each command. Memory is measured once, since its figures do not vary.
const RUNS: usize = 7;

/// The kinds of waiters, in the order of the columns: upcall's, Go's, tokio's and may's.
const KINDS: [&str; 4] = ["fibers", "goroutines", "tasks", "coroutines"];

/// One row of the table.
pub struct Wait {
    /// The subject of the row.
    pub what: &'static str,
    /// The unit of the numbers.
    pub unit: Unit,
    /// The target: each number of upcall is at most this.
    pub most: f64,
    /// The numbers of each kind, one for each case named in `what`. Empty if there is nothing to
    /// measure.
    pub measured: [Vec<f64>; 4],
    cores: usize,
    /// The program's arguments for each kind. `waiting/c/main.c` explains them.
    scenes: [Vec<String>; 4],
}

impl Wait {
    /// Makes a row with the same scenes for every kind. `{}` stands for the kind's name.
    fn new(what: &'static str, unit: Unit, most: f64, cores: usize, scenes: &[&str]) -> Wait {
        let scenes = KINDS.map(|kind| scenes.iter().map(|scene| scene.replace("{}", kind)).collect());
        Wait { what, unit, most, measured: Default::default(), cores, scenes }
    }

    /// Replaces the scenes of one kind by `scene`, or removes them.
    fn but(mut self, kind: &str, scene: Option<&str>) -> Wait {
        for (scenes, _) in self.scenes.iter_mut().zip(KINDS).filter(|(_, other)| *other == kind) {
            *scenes = scene.into_iter().map(str::to_owned).collect();
        }
        self
    }

    /// Whether upcall reaches the target. `None` if nothing was measured.
    pub fn reached(&self) -> Option<bool> {
        let [ours, ..] = &self.measured;
        (!ours.is_empty()).then(|| ours.iter().all(|number| *number <= self.most))
    }
}

fn speeds() -> Vec<Wait> {
    let on_one = |what, most, scene| Wait::new(what, Ns, most, 1, &[scene]);
    let blocking = |what, scene| Wait::new(what, Times, 1.1, 2, &[scene]).but("coroutines", None);
    vec![
        on_one("one spawned and joined", 200.0, "work {} spawn"),
        on_one("… in batches of 1,000", 100.0, "work {} batches"),
        on_one("a yield, of two in turn", 30.0, "work {} yield"),
        on_one("a channel's round trip, of two on one thread", 200.0, "work {} channel"),
        on_one("a round trip from an upcall to one on another thread; one core", 4300.0, "exchange {}"),
        Wait::new("… two cores", Ns, 1000.0, 2, &["exchange {}"]),
        Wait::new("… one on its own thread, a LocalRuntime's", Ns, 300.0, 1, &[])
            .but("fibers", Some("exchange own_fibers")),
        blocking(
            "64 times 250 blocking calls of 1 ms at once, against 250 in a row; two cores",
            "blocking {} blocking",
        )
        .but("tasks", None),
        blocking("… handed to threads kept for this", "blocking {} elsewhere").but("goroutines", None),
    ]
}

fn memory() -> Vec<Wait> {
    let scenes = ["memory {} 100000", "memory {} 1000000"];
    let what =
        "memory of one waiting, of 100,000 / 1,000,000; of may's, with their limit near 32,740, of 30,000";
    vec![Wait::new(what, Bytes, 4.6 * 1024.0, 1, &scenes).but("coroutines", Some("memory coroutines 30000"))]
}

/// Builds the programs and measures all rows, with Go if its library is there.
pub fn run_all(go: Option<&Path>) -> Result<(Vec<Wait>, Counts), Failure> {
    let rust = build(Measured::Waiting, Library::Static)?;
    let go = go.map(|archive| build(Measured::Waiting, Library::Go(archive))).transpose()?;
    let programs = [Some(&*rust), go.as_deref(), Some(&*rust), Some(&*rust)];
    let (mut waits, counts) = measured(speeds(), programs, RUNS)?;
    waits.extend(measured(memory(), programs, 1)?.0);
    Ok((waits, counts))
}

fn measured(
    mut waits: Vec<Wait>,
    programs: [Option<&Path>; 4],
    runs: usize,
) -> Result<(Vec<Wait>, Counts), Failure> {
    let last = machine::last_core();
    let mut commands = Vec::new();
    let mut places = Vec::new();
    for (row, wait) in waits.iter().enumerate().filter(|(_, wait)| wait.cores <= last + 1) {
        let cores = format!("{}-{last}", last + 1 - wait.cores);
        for (column, (scenes, program)) in wait.scenes.iter().zip(programs).enumerate() {
            let Some(program) = program else { continue };
            for scene in scenes {
                let mut command = Command::new("taskset");
                // Set before the program begins, because runtimes count their cores at the start.
                command.args(["-c", &cores]).arg(program).args(scene.split_whitespace());
                commands.push(command);
                places.push((row, column));
            }
        }
    }
    let (values, counts) = repeat(commands, runs)?;
    for ((row, column), values) in places.into_iter().zip(values) {
        waits[row].measured[column].extend(values.get("figure"));
    }
    Ok((waits, counts))
}
