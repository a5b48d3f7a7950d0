//! `cargo xtask hosts`: each folder of `hosts/real/` is a host.
//!
//! Its `run.sh` builds the host's files into `$CARGO_TARGET_DIR` and runs its cases, each in its
//! own process. It prints `version …` once and `ok …` for each case; all other lines are the
//! host's own. It exits with 0 on success. If the host is not installed on this machine, it prints
//! `SKIPPED: …` and exits with 77. The file `packages` beside it lists the host's Debian packages,
//! one on each line.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{USAGE, root};

/// The exit code of a script for an absent host.
const ABSENT: i32 = 77;
/// The folder of the hosts.
const HOSTS: &str = "hosts/real";

struct Ran {
    host: String,
    version: String,
    cases: usize,
    took: Duration,
    result: Result,
}

#[derive(PartialEq)]
enum Result {
    Passed,
    Skipped(String),
    Failed(String),
}

pub fn run(arguments: &[&str]) -> std::result::Result<(), String> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        arguments.iter().partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| !["--install", "--all"].contains(option)) {
        return Err(format!("{unknown} is no option\n{USAGE}"));
    }
    let hosts = chosen(&names)?;
    if options.contains(&"--install") {
        install(&hosts)?;
    }
    let ran: Vec<Ran> = hosts.iter().map(|host| run_one(host)).collect();
    print(&ran);
    let bad = |ran: &&Ran| match ran.result {
        Result::Passed => false,
        Result::Skipped(_) => options.contains(&"--all"),
        Result::Failed(_) => true,
    };
    let bad: Vec<&str> = ran.iter().filter(bad).map(|ran| ran.host.as_str()).collect();
    if bad.is_empty() { Ok(()) } else { Err(format!("not as it should be: {}", bad.join(", "))) }
}

/// The hosts with these names, or all hosts if `names` is empty.
fn chosen(names: &[&str]) -> std::result::Result<Vec<String>, String> {
    let folder = root().join(HOSTS);
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut hosts: Vec<String> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().join("run.sh").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    hosts.sort();
    if let Some(unknown) = names.iter().find(|name| !hosts.iter().any(|host| host == *name)) {
        return Err(format!("there is no host {unknown}; there are: {}", hosts.join(", ")));
    }
    hosts.retain(|host| names.is_empty() || names.contains(&host.as_str()));
    Ok(hosts)
}

fn install(hosts: &[String]) -> std::result::Result<(), String> {
    let mut packages: Vec<String> = Vec::new();
    for host in hosts {
        let list = fs::read_to_string(root().join(HOSTS).join(host).join("packages")).unwrap_or_default();
        packages.extend(list.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()));
    }
    packages.sort();
    packages.dedup();
    let absent: Vec<&String> = packages.iter().filter(|package| !is_installed(package)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]).args(&absent);
        // No server is started, and no question is asked.
        apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        apt.status().is_ok_and(|status| status.success())
    };
    let update =
        || Command::new("apt-get").args(["update", "-o", "DPkg::Lock::Timeout=300"]).status().is_ok();
    if install() || update() && install() {
        return Ok(());
    }
    Err(format!("apt-get did not install {absent:?}: it has to be root, on a Debian system"))
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
    query.is_ok_and(|found| String::from_utf8_lossy(&found.stdout).ends_with(" installed"))
}

/// Runs a host's script, and passes on its output.
fn run_one(host: &str) -> Ran {
    println!("== {host}");
    let began = Instant::now();
    let (mut version, mut cases, mut why) = (String::new(), 0, String::new());
    let mut line_of = |line: String| {
        println!("{line}");
        if let Some(told) = line.strip_prefix("version ") {
            version = told.to_owned();
        } else if line.starts_with("ok ") {
            cases += 1;
        } else if let Some(told) = line.strip_prefix("SKIPPED: ") {
            why = told.to_owned();
        }
    };
    let result = match script(&root().join(HOSTS).join(host), &mut line_of) {
        Ok(Some(0)) if cases > 0 => Result::Passed,
        Ok(Some(0)) => Result::Failed("ran no case".to_owned()),
        Ok(Some(ABSENT)) => Result::Skipped(why),
        Ok(Some(code)) => Result::Failed(format!("exit code {code}")),
        Ok(None) => Result::Failed("ended by a signal".to_owned()),
        Err(error) => Result::Failed(error.to_string()),
    };
    Ran { host: host.to_owned(), version, cases, took: began.elapsed(), result }
}

/// Runs the `run.sh` of a folder. Returns its exit code.
fn script(folder: &Path, line_of: &mut impl FnMut(String)) -> std::io::Result<Option<i32>> {
    let mut script = Command::new(folder.join("run.sh"));
    script
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", root().join("target/hosts"))
        .env("RUST_BACKTRACE", "0");
    // `cargo run` sets these for this process. They are not meant for the script.
    script.env_remove("LD_LIBRARY_PATH").env_remove("CARGO_MANIFEST_DIR");
    let mut child = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    for line in BufReader::new(stdout).lines() {
        line_of(line?);
    }
    Ok(child.wait()?.code())
}

fn print(ran: &[Ran]) {
    let widths = |of: fn(&Ran) -> usize| ran.iter().map(of).max().unwrap_or(0);
    let (host, version) = (widths(|ran| ran.host.len()).max(4), widths(|ran| ran.version.len()).max(7));
    println!("\n{:host$}  {:version$}  cases  seconds  result", "host", "version");
    for one in ran {
        let result = match &one.result {
            Result::Passed => "passed".to_owned(),
            Result::Skipped(why) => format!("SKIPPED: {why}"),
            Result::Failed(why) => format!("FAILED: {why}"),
        };
        let seconds = one.took.as_secs_f64();
        println!("{:host$}  {:version$}  {:5}  {seconds:7.1}  {result}", one.host, one.version, one.cases);
    }
}
