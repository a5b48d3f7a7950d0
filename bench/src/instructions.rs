//! The instruction counts of warm calls, against fixed limits.
//!
//! The counts are exact. Nanoseconds are not, so no limit on them could be held.

use std::env::consts::ARCH;
use std::path::Path;
use std::process::Command;

use crate::programs::{Library, Measured, build};
use crate::{Failure, folder};

/// Calls in the shorter and the longer run. The runs differ in warm calls alone.
const CALLS: [u64; 2] = [1_000, 11_000];

/// Compares each kind of call in this architecture's file of limits with its limit there.
pub fn check() -> Result<(), Failure> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: counting instructions needs valgrind, which is not installed");
        return Ok(());
    }
    let program = build(Measured::Calls, Library::Static)?;
    let file = folder().join("instructions").join(ARCH).with_extension("txt");
    let limits = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut exceeded = Vec::new();
    for line in limits.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (kind, limit) = line.split_once(' ').ok_or_else(|| format!("{}: `{line}`", file.display()))?;
        let limit: u64 = limit.trim().parse()?;
        let counted = instructions_a_call(&program, kind)?;
        println!("{kind}: {counted} instructions a call, limit {limit}");
        if counted > limit {
            exceeded.push(kind);
        }
    }
    if exceeded.is_empty() { Ok(()) } else { Err(format!("over the limit: {}", exceeded.join(", ")).into()) }
}

/// The instructions of one call, rounded to the nearest integer.
///
/// A run's other instructions depend slightly on the number of calls.
fn instructions_a_call(program: &Path, kind: &str) -> Result<u64, Failure> {
    let [few, many] = CALLS;
    let more = instructions(program, kind, many)? - instructions(program, kind, few)?;
    let calls = many - few;
    Ok((more + calls / 2) / calls)
}

/// The instructions of a whole run, counted by callgrind.
fn instructions(program: &Path, kind: &str, calls: u64) -> Result<u64, Failure> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    valgrind.args(["0", "main", "later", "count", kind]).arg(calls.to_string());
    let output = valgrind.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(collected) if output.status.success() => Ok(collected),
        _ => Err(format!("{valgrind:?}: {}\n{said}", output.status).into()),
    }
}
