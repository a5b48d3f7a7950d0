//! The rows of the table, computed from the scenes' numbers, and the targets of the rows.

use crate::scene::{Results, Sides, Values};

/// The unit of a row's numbers.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// The ratio to another row's number.
    Times,
    /// Bytes.
    Bytes,
}

use Unit::{Ns, Times};

/// The target of a row.
#[derive(Clone, Copy)]
pub enum Target {
    /// Each number is at most this: linked statically, and shared.
    AtMost(f64, f64),
    /// Each number is at least this.
    AtLeast(f64),
}

/// One row of the table.
pub struct Row {
    /// The subject of the row.
    pub what: String,
    /// The unit of the numbers.
    pub unit: Unit,
    /// The target, if the row is one of the figures.
    pub target: Option<Target>,
    /// The numbers of upcall, one for each case named in `what`. Empty if not measured.
    pub measured: Sides<Vec<f64>>,
    /// The numbers of a bare call in place of the upcall. Like the next two, they are linked
    /// statically.
    pub bare: Vec<f64>,
    /// The numbers of `catch_unwind` by hand.
    pub catch_unwind: Vec<f64>,
    /// The numbers of `stacker::maybe_grow` in `catch_unwind`.
    pub stacker: Vec<f64>,
}

impl Row {
    /// Makes a row. `number` computes its numbers from the values of each scene.
    ///
    /// Its second argument is the name of a value: `name` for upcall, or the name of a peer.
    fn new(
        what: &str,
        unit: Unit,
        scenes: &[&Sides<Values>],
        name: &str,
        number: impl Fn(&Values, &str) -> Option<f64>,
    ) -> Row {
        let numbers =
            |side: usize, name| scenes.iter().filter_map(|scene| number(&scene[side], name)).collect();
        Row {
            what: what.to_owned(),
            unit,
            target: None,
            measured: [0, 1, 2].map(|side| numbers(side, name)),
            bare: numbers(0, "bare"),
            catch_unwind: numbers(0, "catch_unwind"),
            stacker: numbers(0, "stacker"),
        }
    }

    fn at_most(self, limit: f64) -> Row {
        self.with(Target::AtMost(limit, limit))
    }

    fn with(self, target: Target) -> Row {
        Row { target: Some(target), ..self }
    }

    /// Whether the numbers reach the target, linked statically and shared. `None` without a target
    /// or without numbers.
    pub fn reached(&self) -> Option<[bool; 2]> {
        let target = self.target?;
        let reached = |side: usize| {
            self.measured[side].iter().all(|&number| match target {
                Target::AtMost(linked_statically, shared) => number <= [linked_statically, shared][side],
                Target::AtLeast(least) => number >= least,
            })
        };
        (!self.measured[0].is_empty()).then(|| [reached(0), reached(1)])
    }
}

/// All rows, in the order of the figures.
pub fn rows(results: &Results) -> Vec<Row> {
    let mut rows = Vec::from(own(results));
    rows.extend(foreign(results));
    rows.extend(described(results));
    rows.push(alternating(results));
    rows.extend(nested(results));
    rows.extend(downcalls(results));
    rows.extend(threads(results));
    rows
}

fn ratio(values: &Values, name: &str, other: &str) -> Option<f64> {
    Some(values.get(name)? / values.get(other)?)
}

fn difference(values: &Values, name: &str, other: &str) -> Option<f64> {
    Some(values.get(name)? - values.get(other)?)
}

fn own(results: &Results) -> [Row; 3] {
    let scene = &[results.of("main later own")];
    let against_bare = |values: &Values, name: &str| ratio(values, name, "bare");
    let with_body = |values: &Values, name: &str| ratio(values, &format!("body_{name}"), "body_bare");
    [
        Row::new("warm upcall on the thread's own stack", Ns, scene, "upcall", Values::get),
        Row::new("… against a bare call", Times, scene, "upcall", against_bare)
            .with(Target::AtMost(1.5, 1.8)),
        Row::new("… both with a body that may panic", Times, scene, "upcall", with_body),
    ]
}

fn foreign(results: &Results) -> [Row; 4] {
    [
        ("upcall from a foreign stack, main thread; 60 / 1,000 / 10,000 stacks", "main later"),
        ("… after a first upcall on the same stack", "main first"),
        ("upcall from a foreign stack, another thread; 60 / 1,000 / 10,000 stacks", "pthread later"),
        ("… after a first upcall on the same stack", "pthread first"),
    ]
    .map(|(what, thread)| {
        let scenes = ["60", "1000", "10000"].map(|count| results.of(&format!("{thread} foreign {count}")));
        Row::new(what, Ns, &scenes, "upcall", Values::get).at_most(6.0)
    })
}

fn described(results: &Results) -> [Row; 2] {
    let scenes = ["64", "512"].map(|size| results.of(&format!("main later described 10000 {size}")));
    let lookup = |values: &Values, name: &str| if name == "lookup" { values.get(name) } else { None };
    [
        Row::new(
            "upcall from one of 10,000 registered stacks; of 64 / 512 KiB",
            Ns,
            &scenes,
            "upcall",
            Values::get,
        )
        .at_most(6.0),
        Row::new("… looking all of them up in random order", Ns, &scenes, "lookup", lookup).at_most(50.0),
    ]
}

fn alternating(results: &Results) -> Row {
    let scenes = ["main", "pthread"].map(|thread| results.of(&format!("{thread} later alternating")));
    let what = "upcalls on own and foreign stack in turn, a pair without its swaps; main / another thread";
    let pair = |values: &Values, name: &str| difference(values, name, "swaps");
    Row::new(what, Ns, &scenes, "upcall", pair).at_most(9.0)
}

fn nested(results: &Results) -> [Row; 2] {
    let scenes = ["own", "foreign"].map(|stack| results.of(&format!("main later nested {stack}")));
    let against_outer =
        |values: &Values, name: &str| if name == "inner" { ratio(values, name, "outer") } else { None };
    [
        Row::new("nested upcall; own / foreign stack", Ns, &scenes, "inner", Values::get),
        Row::new("… against one not nested", Times, &scenes, "inner", against_outer).at_most(1.3),
    ]
}

fn downcalls(results: &Results) -> [Row; 2] {
    let scene = &[results.of("main later downcalls")];
    [
        Row::new("downcall of an empty C function, in place", Ns, scene, "in_place", Values::get)
            .at_most(2.0),
        Row::new("… from a pooled stack", Ns, scene, "pooled", Values::get).at_most(4.0),
    ]
}

fn threads(results: &Results) -> [Row; 3] {
    let created = &[results.of("main later threads")];
    let parallel = &[results.of("main later parallel")];
    let alone = |values: &Values, name: &str| if name == "none" { values.get(name) } else { None };
    let more = |values: &Values, name: &str| difference(values, name, "none");
    let against_one = |values: &Values, name: &str| {
        ratio(values, &format!("{name}_one"), &format!("{name}_two")).map(|ratio| 2.0 * ratio)
    };
    [
        Row::new("a thread created and joined", Ns, created, "none", alone),
        Row::new("… more if it makes an upcall", Ns, created, "upcall", more).at_most(1200.0),
        Row::new("two threads against one, upcalls a second", Times, parallel, "upcall", against_one)
            .with(Target::AtLeast(1.9)),
    ]
}
