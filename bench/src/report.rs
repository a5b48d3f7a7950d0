//! The table, as Markdown that also reads well on a terminal, and the same numbers as JSON.

use std::fmt::Write;

use crate::rows::{Row, Target, Unit};

const HEAD: [&str; 9] =
    ["what", "to reach", "static", "shared", "verdict", "bare", "catch_unwind", "stacker", "Go"];

/// Names and values that say what was measured on.
type Machine = [(&'static str, String)];

/// The table below what it was measured on.
pub fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut text = String::from(
        "# What calls cost\n\nMedians, side by side in one run of `cargo run --release -p bench`, pinned to a core. \
         The verdict is on the static library and the shared one; bare, catch_unwind and stacker are statically linked.\n\n",
    );
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push('\n');
    let go_found = rows.iter().any(|row| !row.measured[2].is_empty());
    let cells: Vec<_> = rows.iter().map(|row| cells(row, go_found)).collect();
    text + &table(&HEAD.map(str::to_owned), &cells)
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

/// Numbers in one unit, which is that of the largest.
fn numbers_text(numbers: &[f64], unit: Unit) -> String {
    let Some(largest) = numbers.iter().copied().map(f64::abs).reduce(f64::max) else {
        return "–".to_owned();
    };
    let (unit, size) = match unit {
        Unit::Times => ("×", 1.0),
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

/// All numbers, and what they were measured on.
pub fn json(machine: &Machine, rows: &[Row]) -> String {
    let machine = object(machine.iter().map(|(name, value)| (*name, string(value))));
    let rows: Vec<String> = rows.iter().map(|row| format!("    {}", json_row(row))).collect();
    format!("{{\n  \"machine\": {machine},\n  \"rows\": [\n{}\n  ]\n}}\n", rows.join(",\n"))
}

fn json_row(row: &Row) -> String {
    let unit = match row.unit {
        Unit::Ns => "ns",
        Unit::Times => "times",
    };
    object([
        ("what", string(&row.what)),
        ("unit", string(unit)),
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
