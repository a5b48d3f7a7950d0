//! Builds a C program against the guest library and runs one of its cases.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How the guest library is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    Static,
    Shared,
}

/// What a case is expected to do.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// Exit with 0.
    Success,
    /// Exit with 0, having printed this.
    Prints(&'static str),
    /// Exit with 0, having said this exactly once on stderr.
    SaysOnce(&'static str),
    /// Be stopped by SIGABRT, having said this on stderr.
    Aborts(&'static str),
}

/// A time limit for a case: an endless loop is a failure, not a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// A C program, built.
pub struct Program {
    name: &'static str,
    path: PathBuf,
    link: Link,
}

impl Program {
    /// Builds `c/<name>.c`, the first time it is asked for.
    pub fn built(name: &'static str, link: Link) -> Program {
        static BUILT: Mutex<Option<HashMap<(&'static str, Link), PathBuf>>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let built = built.get_or_insert_default();
        let path = built.entry((name, link)).or_insert_with(|| build(name, link)).clone();
        Program { name, path, link }
    }

    /// Runs a case with `variables` added to its environment.
    pub fn run(&self, case: &str, variables: &[(&str, &str)], expected: Outcome) {
        let mut command = Command::new(&self.path);
        command.arg(case).envs(variables.iter().copied()).env("RUST_BACKTRACE", "0");
        // Cargo's points to where another build may have left an older guest library.
        command.env_remove("LD_LIBRARY_PATH");
        if cfg!(stackbounds_no_query) {
            command.env("HOST_NO_QUERY", "1");
        }
        if cfg!(debug_assertions) {
            command.env("HOST_UNOPTIMISED", "1");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let status = wait(&mut child);
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let as_expected = match expected {
            Outcome::Success => status.is_some_and(|s| s.success()),
            Outcome::Prints(text) => status.is_some_and(|s| s.success()) && stdout.contains(text),
            Outcome::SaysOnce(text) => {
                status.is_some_and(|s| s.success()) && stderr.matches(text).count() == 1
            }
            Outcome::Aborts(text) => status.is_some_and(aborted) && stderr.contains(text),
        };
        let status = status.map_or(format!("still running after {LIMIT:?}"), |status| status.to_string());
        let (name, link) = (self.name, self.link);
        assert!(as_expected, "{name} {case} ({link:?}): {status}\n{stdout}\n{stderr}");
        println!("{name} {case} ({link:?}): {}", stdout.lines().last().unwrap_or("ok"));
    }
}

fn aborted(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGABRT)
}

/// Reads a pipe to its end beside the child, which must not block on a full one.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the child; kills it when its time is over.
fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

fn build(name: &str, link: Link) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c");
    // Cargo leaves the guest library beside this test's own executable.
    let libraries = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let to = libraries.join("c-hosts");
    std::fs::create_dir_all(&to).unwrap();
    let program = to.join(format!("{name}-{link:?}"));
    let mut cc = compiler();
    cc.args(["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program);
    // Bound at the start: a case that leaves 1 KiB of stack is about our need of it, not the dynamic linker's.
    cc.arg("-Wl,-z,now").arg(source.join(name).with_extension("c"));
    match link {
        // What `rustc --print native-static-libs` lists for Linux.
        Link::Static => cc.arg(libraries.join("libguest.a")).args([
            "-lgcc_s",
            "-lutil",
            "-lrt",
            "-lpthread",
            "-lm",
            "-ldl",
        ]),
        Link::Shared => {
            cc.arg("-L").arg(&libraries).arg("-lguest").arg(format!("-Wl,-rpath,{}", libraries.display()))
        }
    };
    cc.args(libraries_of(name));
    let output = cc.output().expect("a C compiler: install one, or name it in CC");
    assert!(output.status.success(), "{cc:?}\n{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or("cc".into()))
}

/// What the host program links besides the guest library.
fn libraries_of(name: &str) -> &'static [&'static str] {
    if name == "uv" { &["-luv"] } else { &[] }
}

/// Whether the program `name`, which includes `<name>.h`, can be built here; says so if it cannot.
pub fn can_build(name: &str) -> bool {
    let mut cc = compiler();
    cc.args(["-shared", "-o", "/dev/null", "-include"]).arg(format!("{name}.h")).args([
        "-x",
        "c",
        "/dev/null",
    ]);
    let can = cc.args(libraries_of(name)).output().is_ok_and(|output| output.status.success());
    if !can {
        // Past the capture of what tests print.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {name}.h or its library is not installed (ci/packages.sh does)"
        );
    }
    can
}
