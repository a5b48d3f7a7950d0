//! The figures as a Markdown table, readable on a terminal too, and as JSON.

use std::fmt::Write;

use crate::rows::{Row, Target, Unit};
use crate::waits::Wait;

const HEAD: [&str; 9] =
    ["measured", "to reach", "static", "shared", "verdict", "bare", "catch_unwind", "stacker", "Go"];

const HEAD_OF_WAITS: [&str; 7] = ["measured", "to reach", "upcall", "verdict", "Go", "tokio", "may"];

/// The machine of the measurements, as names and values.
type Machine = [(&'static str, String)];

/// The tables as Markdown, after the description of the machine.
pub fn markdown(machine: &Machine, rows: &[Row], waits: &[Wait]) -> String {
    let mut text = String::from(
        "# The cost of calls\n\nMedians, side by side in one run of `cargo run --release -p bench`, pinned to a core. \
         The verdict is on the static library and the shared one; bare, catch_unwind and stacker are statically linked.\n\n",
    );
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push('\n');
    let go_found = rows.iter().any(|row| !row.measured[2].is_empty());
    let cells: Vec<_> = rows.iter().map(|row| cells(row, go_found)).collect();
    text += &table(&HEAD.map(str::to_owned), &cells);
    text.push_str(
        "\n## The cost of waiting\n\nMedians of the same run: statically linked, on as many cores as named, else on one. upcall's fibers use channels of kanal; Go's goroutines, \
         tokio's tasks and may's coroutines use their own. Memory is the growth of the whole process, page tables included.\n\n",
    );
    let cells: Vec<_> = waits.iter().map(|wait| wait_cells(wait, go_found)).collect();
    text + &table(&HEAD_OF_WAITS.map(str::to_owned), &cells)
}

fn table<const N: usize>(head: &[String; N], rows: &[[String; N]]) -> String {
    let lines = || std::iter::once(head).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let rule = widths.map(|width| "-".repeat(width));
    let mut text = String::new();
    for line in std::iter::once(head).chain([&rule]).chain(rows) {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
    }
    text
}

fn cells(row: &Row, go_found: bool) -> [String; 9] {
    let number = |numbers: &[f64]| numbers_text(numbers, row.unit);
    let go = if go_found { number(&row.measured[2]) } else { "not found".to_owned() };
    [
        row.what.clone(),
        target(row),
        number(&row.measured[0]),
        number(&row.measured[1]),
        verdict(row).to_owned(),
        number(&row.bare),
        number(&row.catch_unwind),
        number(&row.stacker),
        go,
    ]
}

fn wait_cells(wait: &Wait, go_found: bool) -> [String; 7] {
    let [upcall, go, tokio, may] = wait.measured.each_ref().map(|numbers| numbers_text(numbers, wait.unit));
    let go = if go_found { go } else { "not found".to_owned() };
    [wait.what.to_owned(), wait_target(wait), upcall, wait_verdict(wait).to_owned(), go, tokio, may]
}

fn wait_target(wait: &Wait) -> String {
    format!("≤ {}", number_text(wait.most, wait.unit))
}

fn wait_verdict(wait: &Wait) -> &'static str {
    match wait.reached() {
        None => "not measured",
        Some(true) => "reached",
        Some(false) => "missed",
    }
}

fn target(row: &Row) -> String {
    match row.target {
        None => String::new(),
        Some(Target::AtLeast(least)) => format!("≥ {}", number_text(least, row.unit)),
        Some(Target::AtMost(most, shared)) if most == shared => format!("≤ {}", number_text(most, row.unit)),
        Some(Target::AtMost(most, shared)) => {
            format!("≤ {}, shared {}", number_text(most, row.unit), number_text(shared, row.unit))
        }
    }
}

fn verdict(row: &Row) -> &'static str {
    match (row.target, row.reached()) {
        (None, _) => "",
        (_, None) => "not measured",
        (_, Some([true, true])) => "reached",
        (_, Some([true, false])) => "reached; missed shared",
        (_, Some([false, true])) => "missed; reached shared",
        (_, Some([false, false])) => "missed",
    }
}

/// Formats numbers in one unit, chosen by the largest.
fn numbers_text(numbers: &[f64], unit: Unit) -> String {
    let Some(largest) = numbers.iter().copied().map(f64::abs).reduce(f64::max) else {
        return "–".to_owned();
    };
    let (unit, size) = match unit {
        Unit::Times => ("×", 1.0),
        Unit::Bytes if largest < 1024.0 => ("B", 1.0),
        Unit::Bytes => ("KiB", 1024.0),
        Unit::Ns if largest < 1e3 => ("ns", 1.0),
        Unit::Ns if largest < 1e6 => ("µs", 1e3),
        Unit::Ns => ("ms", 1e6),
    };
    let digits = |number: &f64| three_digits(number / size);
    format!("{} {unit}", numbers.iter().map(digits).collect::<Vec<_>>().join(" / "))
}

fn number_text(number: f64, unit: Unit) -> String {
    numbers_text(&[number], unit)
}

fn three_digits(number: f64) -> String {
    let decimals = match number.abs() {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// All numbers and the machine's description, as JSON.
pub fn json(machine: &Machine, rows: &[Row], waits: &[Wait]) -> String {
    let machine = object(machine.iter().map(|(name, value)| (*name, string(value))));
    let rows = lines(rows.iter().map(json_row));
    let waits = lines(waits.iter().map(json_wait));
    format!("{{\n  \"machine\": {machine},\n  \"rows\": {rows},\n  \"waits\": {waits}\n}}\n")
}

/// A JSON array with one line for each element.
fn lines(elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<String> = elements.map(|element| format!("    {element}")).collect();
    format!("[\n{}\n  ]", elements.join(",\n"))
}

fn json_wait(wait: &Wait) -> String {
    let [upcall, go, tokio, may] = wait.measured.each_ref().map(|numbers| array(numbers));
    object([
        ("what", string(wait.what)),
        ("unit", string(unit_name(wait.unit))),
        ("to_reach", string(&wait_target(wait))),
        ("upcall", upcall),
        ("verdict", string(wait_verdict(wait))),
        ("go", go),
        ("tokio", tokio),
        ("may", may),
    ])
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Ns => "ns",
        Unit::Times => "times",
        Unit::Bytes => "bytes",
    }
}

fn json_row(row: &Row) -> String {
    object([
        ("what", string(&row.what)),
        ("unit", string(unit_name(row.unit))),
        ("to_reach", string(&target(row))),
        ("static", array(&row.measured[0])),
        ("shared", array(&row.measured[1])),
        ("verdict", string(verdict(row))),
        ("bare", array(&row.bare)),
        ("catch_unwind", array(&row.catch_unwind)),
        ("stacker", array(&row.stacker)),
        ("go", array(&row.measured[2])),
    ])
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members = members.into_iter().map(|(name, value)| format!("{}: {value}", string(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

fn array(numbers: &[f64]) -> String {
    let numbers = numbers.iter().map(|number| format!("{number:.4}"));
    format!("[{}]", numbers.collect::<Vec<_>>().join(", "))
}

fn string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
