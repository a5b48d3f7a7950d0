//! The runs of the scenes: a program for each library, each scene several times.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::programs::{Library, Measured, build, run};
use crate::{Failure, machine};

/// The number of runs of each scene by each program.
///
/// In each run, the system puts stacks and code at other addresses, and this changes the figures.
/// So does other load on the machine. Therefore all scenes run once before any scene runs again.
const RUNS: usize = 9;

/// The largest ratio of a probe's time to the fastest probe's in a quiet run.
///
/// The probe is a loop without calls. If it took longer, something else used the core, and the run
/// does not count. If fewer than a third of the runs are quiet, all of them count.
const QUIET: f64 = 1.05;

/// The scenes, as arguments of the programs. `c/main.c` and `c/scenes.h` explain them.
const SCENES: [&str; 22] = [
    "main later own",
    "main later foreign 60",
    "main later foreign 1000",
    "main later foreign 10000",
    "main first foreign 60",
    "main first foreign 1000",
    "main first foreign 10000",
    "pthread later foreign 60",
    "pthread later foreign 1000",
    "pthread later foreign 10000",
    "pthread first foreign 60",
    "pthread first foreign 1000",
    "pthread first foreign 10000",
    "main later described 10000 64",
    "main later described 10000 512",
    "main later alternating",
    "pthread later alternating",
    "main later nested own",
    "main later nested foreign",
    "main later downcalls",
    "main later threads",
    "main later parallel",
];

/// Whether Go has the scene. It has no registered stacks.
fn is_for_go(scene: &str) -> bool {
    !scene.contains("described")
}

/// One value for each guest library: static, shared, Go.
pub type Sides<T> = [T; 3];

/// The output of a scene: medians in nanoseconds, by name. Empty if the scene was not run.
#[derive(Default)]
pub struct Values(BTreeMap<String, f64>);

impl Values {
    /// The number called `name`, if it was measured.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The probe's time. Infinite without a probe.
    fn probe(&self) -> f64 {
        self.get("probe").unwrap_or(f64::INFINITY)
    }
}

/// The output of all scenes.
pub struct Results {
    scenes: BTreeMap<&'static str, Sides<Values>>,
    pub runs: Counts,
}

impl Results {
    /// The results of one scene.
    ///
    /// # Panics
    /// If no scene has this name.
    pub fn of(&self, scene: &str) -> &Sides<Values> {
        &self.scenes[scene]
    }
}

/// Builds the programs, runs all scenes several times, and takes the medians.
pub fn run_all(go: Option<&Path>) -> Result<Results, Failure> {
    let libraries = [Library::Static, Library::Shared].into_iter().chain(go.map(Library::Go));
    let programs: Vec<_> =
        libraries.map(|library| build(Measured::Calls, library)).collect::<Result<_, _>>()?;
    let core = machine::last_core().to_string();
    let mut places = Vec::new();
    let mut commands = Vec::new();
    for scene in SCENES {
        let sides = if is_for_go(scene) { 3 } else { 2 };
        for (side, program) in programs.iter().take(sides).enumerate() {
            let mut command = Command::new(program);
            command.arg(&core).args(scene.split_whitespace());
            places.push((scene, side));
            commands.push(command);
        }
    }
    let (values, runs) = repeat(commands, RUNS)?;
    let mut scenes: BTreeMap<&str, Sides<Values>> = BTreeMap::new();
    for ((scene, side), values) in places.into_iter().zip(values) {
        scenes.entry(scene).or_default()[side] = values;
    }
    Ok(Results { scenes, runs })
}

/// The numbers of runs and of quiet runs.
pub type Counts = (usize, usize);

/// Runs each command `times` times, and returns the medians of its output.
///
/// All commands run once before any runs again.
pub fn repeat(mut commands: Vec<Command>, times: usize) -> Result<(Vec<Values>, Counts), Failure> {
    let mut runs: Vec<Vec<Values>> = commands.iter().map(|_| Vec::new()).collect();
    for number in 1..=times {
        eprintln!("run {number} of {times}");
        for (command, runs) in commands.iter_mut().zip(&mut runs) {
            runs.push(values(&run(command)?)?);
        }
    }
    let probes: Vec<f64> =
        runs.iter().flatten().map(Values::probe).filter(|probe| probe.is_finite()).collect();
    let quiet = QUIET * probes.iter().copied().fold(f64::INFINITY, f64::min);
    let counts = (probes.len(), probes.iter().filter(|probe| **probe <= quiet).count());
    Ok((runs.into_iter().map(|runs| medians(runs, quiet)).collect(), counts))
}

/// Parses a program's output: a name and a number on each line.
fn values(printed: &str) -> Result<Values, Failure> {
    let mut values = Values::default();
    for line in printed.lines() {
        let (name, number) = line.split_once(' ').ok_or_else(|| format!("a scene printed `{line}`"))?;
        values.0.insert(name.to_owned(), number.parse()?);
    }
    Ok(values)
}

/// The medians over the runs with a probe of at most `quiet`. If fewer than a third are quiet, the
/// medians over all.
fn medians(mut runs: Vec<Values>, quiet: f64) -> Values {
    if 3 * runs.iter().filter(|run| run.probe() <= quiet).count() >= runs.len() {
        runs.retain(|run| run.probe() <= quiet);
    }
    let mut numbers: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, number) in runs.into_iter().flat_map(|run| run.0) {
        numbers.entry(name).or_default().push(number);
    }
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    Values(numbers.into_iter().map(|(name, numbers)| (name, median(numbers))).collect())
}
