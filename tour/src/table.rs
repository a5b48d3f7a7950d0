//! The table: a row for each scene.

use crate::fetching::{self, CONNECTIONS, Run, STATEMENTS};
use crate::job::Report;
use crate::parts;
use crate::probe::Seen;
use stackbounds::StackBounds;

/// Prints the introduction, and the heads of the columns.
pub fn print_head() {
    println!(
        "SQLite calls SQL functions written in Rust, over a table of {} rows. In the table:",
        parts::COUNT
    );
    println!("  upcall, bare   one call of an empty C function, with an upcall in it and without");
    println!("  deepest        how far down C's stack the deepest call was made");
    println!("  room left      the least stack that Rust code had below it\n");
    print_columns(
        "scene",
        ["calls", "upcall", "bare", "C's stack", "deepest", "Rust ran on", "room left"].map(str::to_owned),
    );
}

/// Prints the row of a scene made of these jobs.
pub fn print_row(name: &str, reports: &[Report]) {
    let calls: usize = reports.iter().map(|report| report.seen.calls).sum();
    let deepest = reports.iter().map(|report| report.seen.deepest).max().unwrap_or(0);
    let least_room = reports.iter().map(|report| report.seen.least_room).min().unwrap_or(0);
    let fastest = |time: fn(&Report) -> f64| reports.iter().map(time).fold(f64::INFINITY, f64::min);
    let Some(Report { seen, .. }) = reports.last() else { return };
    let columns = [
        calls.to_string(),
        format!("{:.1} ns", fastest(|report| report.speed.upcall)),
        format!("{:.1} ns", fastest(|report| report.speed.bare)),
        describe(&seen.c_stack),
        kib(deepest),
        place(seen),
        kib(least_room),
    ];
    print_columns(name, columns);
}

/// Prints that a scene cannot be played here.
pub fn print_skipped(name: &str, reason: &str) {
    println!("{name:<26}SKIPPED: {reason}");
}

/// Prints the introduction of the waiting statements, and a row for each way of running them.
pub fn print_runs(runs: &[Run]) {
    println!(
        "\nSELECT with_tax(fetch(url)), where fetch waits for a web server: {STATEMENTS} such statements on each of"
    );
    println!(
        "{CONNECTIONS} connections at a time. One after the other, the server's answers take {} ms.\n",
        fetching::delays().as_millis()
    );
    print_run("connections as", ["threads", "elapsed", "C's stack", "room left"].map(str::to_owned));
    for Run { name, threads, took, seen } in runs {
        let took = format!("{} ms", took.as_millis());
        print_run(name, [threads.to_string(), took, describe(&seen.c_stack), kib(seen.least_room)]);
    }
}

fn print_run(name: &str, [threads, elapsed, c_stack, room]: [String; 4]) {
    println!("{name:<26}{threads:>7}{elapsed:>10}   {c_stack:<18}{room:>9}");
}

fn print_columns(name: &str, [calls, upcall, bare, c_stack, deepest, rust, room]: [String; 7]) {
    println!("{name:<26}{calls:>6}{upcall:>9}{bare:>9}   {c_stack:<18}{deepest:>7}   {rust:<23}{room:>9}");
}

fn place(seen: &Seen) -> String {
    format!("{}, {}", if seen.own { "own" } else { "pooled" }, describe(&seen.rust_stack))
}

fn describe(stack: &StackBounds) -> String {
    format!("{}, {}", kib(stack.size()), if stack.is_exact() { "exact" } else { "estimated" })
}

fn kib(bytes: usize) -> String {
    format!("{} KiB", bytes >> 10)
}
