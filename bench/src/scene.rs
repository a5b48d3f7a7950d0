//! Running scenes: a program for each library, each scene several times.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::programs::{Library, Measured, build, run};
use crate::{Failure, machine};

/// How often each program runs each scene. Where the system puts stacks and code is another place each time, and matters; so does what
/// else runs on the machine, so all scenes are run once before any is run again.
const RUNS: usize = 9;

/// A run counts if its probe, a loop that has nothing to do with calls, took at most this many times as long as the fastest did: then
/// nobody else was using the core. If there are fewer such runs than a third, all count.
const QUIET: f64 = 1.05;

/// The scenes: arguments of the programs, as `c/main.c` and `c/scenes.h` explain them.
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
    "main later described 10000 256",
    "main later alternating",
    "pthread later alternating",
    "main later nested own",
    "main later nested foreign",
    "main later downcalls",
    "main later threads",
    "main later parallel",
];

/// Go has no stacks to describe.
fn is_for_go(scene: &str) -> bool {
    !scene.contains("described")
}

/// One thing for each guest library: static, shared, Go.
pub type Sides<T> = [T; 3];

/// What a scene printed: medians of nanoseconds, by name. Empty when it was not run.
#[derive(Default)]
pub struct Values(BTreeMap<String, f64>);

impl Values {
    /// The number called `name`, if it was measured.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// How long the probe took; without end if there was none.
    fn probe(&self) -> f64 {
        self.get("probe").unwrap_or(f64::INFINITY)
    }
}

/// What all scenes printed.
pub struct Results {
    scenes: BTreeMap<&'static str, Sides<Values>>,
    pub runs: Counts,
}

impl Results {
    /// The results of one scene.
    ///
    /// # Panics
    /// When there is no such scene.
    pub fn of(&self, scene: &str) -> &Sides<Values> {
        &self.scenes[scene]
    }
}

/// Builds the programs, runs all scenes, and takes the median over the runs of each.
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

/// How many runs there were, and how many of them found the machine quiet.
pub type Counts = (usize, usize);

/// Runs each of the commands so often, all once before any is run again. The median of what each printed.
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

/// Reads what a program printed: a name and a number a line.
fn values(printed: &str) -> Result<Values, Failure> {
    let mut values = Values::default();
    for line in printed.lines() {
        let (name, number) = line.split_once(' ').ok_or_else(|| format!("a scene printed `{line}`"))?;
        values.0.insert(name.to_owned(), number.parse()?);
    }
    Ok(values)
}

/// The medians of those runs whose probe took at most `quiet`, if they are enough, or of all.
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
