//! The machine of the measurements, and the versions of the software.

use std::path::Path;
use std::process::Command;

use crate::{folder, go, programs};

/// Names and values, in the order of the report.
pub fn describe(go: Option<&Path>) -> Vec<(&'static str, String)> {
    vec![
        ("date", printed("date", &["-u", "+%Y-%m-%d"])),
        ("processor", processor()),
        ("cores", (last_core() + 1).to_string()),
        ("system", printed("uname", &["-srm"])),
        ("libc", printed("getconf", &["GNU_LIBC_VERSION"])),
        ("rustc", printed("rustc", &["--version"])),
        ("cc", printed("cc", &["--version"])),
        ("go", go.and_then(go::version).unwrap_or_else(|| "not found".to_owned())),
        ("tokio, may, kanal", ["tokio", "may", "kanal"].map(locked).join(", ")),
    ]
}

/// The number of the last online processor.
pub fn last_core() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    online.trim().rsplit([',', '-']).next().and_then(|last| last.parse().ok()).unwrap_or(0)
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// A crate's version in Cargo.lock.
fn locked(name: &str) -> String {
    let lock = std::fs::read_to_string(folder().join("../Cargo.lock")).unwrap_or_default();
    let version = lock
        .split_once(&format!("name = \"{name}\"\nversion = \""))
        .and_then(|(_, rest)| rest.split('"').next());
    version.unwrap_or("unknown").to_owned()
}

/// The first line printed by a command.
fn printed(program: &str, arguments: &[&str]) -> String {
    let printed = programs::run(Command::new(program).args(arguments)).unwrap_or_default();
    printed.lines().next().unwrap_or("unknown").to_owned()
}
