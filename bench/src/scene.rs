//! Running scenes: a program for each library, each scene several times.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::programs::{Library, build, run};
use crate::{Failure, go, machine};

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

    /// How long the probe took; nothing was run if there is none.
    fn probe(&self) -> f64 {
        self.get("probe").unwrap_or(f64::INFINITY)
    }
}

/// What all scenes printed.
pub struct Results {
    scenes: BTreeMap<&'static str, Sides<Values>>,
    /// How many runs there were, and how many of them found the machine quiet.
    pub runs: (usize, usize),
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
    let archive = go.map(go::build).transpose()?;
    let go = archive.map(|archive| build(Library::Go(&archive))).transpose()?;
    let programs = [Some(build(Library::Static)?), Some(build(Library::Shared)?), go];
    let mut runs: BTreeMap<&str, Sides<Vec<Values>>> = BTreeMap::new();
    for number in 1..=RUNS {
        eprintln!("run {number} of {RUNS}");
        for scene in SCENES {
            let sides = runs.entry(scene).or_default();
            for ((side, program), library) in sides.iter_mut().zip(&programs).zip(["static", "shared", "go"])
            {
                match program {
                    Some(program) if library != "go" || is_for_go(scene) => {
                        side.push(run_once(program, scene)?)
                    }
                    _ => {}
                }
            }
        }
    }
    let all = || runs.values().flatten().flatten();
    let quiet = QUIET * all().map(Values::probe).fold(f64::INFINITY, f64::min);
    let quiet_runs = all().filter(|run| run.probe() <= quiet).count();
    let counts = (all().count(), quiet_runs);
    let scenes = runs.into_iter().map(|(scene, sides)| (scene, sides.map(|runs| medians(runs, quiet))));
    Ok(Results { scenes: scenes.collect(), runs: counts })
}

/// Reads what a program prints: a name and a number a line.
fn run_once(program: &Path, scene: &str) -> Result<Values, Failure> {
    let core = machine::last_core().to_string();
    let printed = run(Command::new(program).arg(core).args(scene.split_whitespace()))?;
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
