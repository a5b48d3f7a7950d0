//! Builds a C program against the guest library and runs one of its cases.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Declares a test for each case of a C program, where `program`, `Outcome` and `Program` are in scope; `=> Outcome` for those that do more than exit with 0.
macro_rules! cases {
    ($($program:ident { $($case:ident $([$($variable:ident = $value:literal)+])? $(=> $outcome:expr)?,)* })*) => { $(
        mod $program {
            use super::*;
            $( #[test] fn $case() {
                let variables: &[(&str, &str)] = &[$($((stringify!($variable), $value)),+)?];
                let outcome = [$($outcome,)? Outcome::Success][0];
                for &link in program::links_of(stringify!($program)) {
                    Program::built(stringify!($program), link).run(stringify!($case), variables, outcome);
                }
            } )*
        }
    )* };
}

/// How the guest library is linked, or loaded by `dlopen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    Static,
    Shared,
    /// Loaded with `RTLD_LOCAL`.
    Local,
    /// Loaded with `RTLD_GLOBAL`.
    Global,
}

/// The ways in which a program has the guest library.
pub fn links_of(name: &str) -> &'static [Link] {
    if name == "plugins" { &[Link::Local, Link::Global] } else { &[Link::Static, Link::Shared] }
}

/// What a case is expected to do.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "not each test file expects them all")]
pub enum Outcome {
    /// Exit with 0.
    Success,
    /// Exit with 0, having printed this.
    Prints(&'static str),
    /// Exit with 0, having said this exactly once on stderr.
    SaysOnce(&'static str),
    /// Be stopped by SIGABRT, having said this on stderr.
    Aborts(&'static str),
    /// Be stopped by SIGABRT, having said all of this on stderr, in this order.
    AbortsSaying([&'static str; 5]),
    /// Exit with this status, having said this on stderr.
    Exits(i32, &'static str),
    /// Be stopped by SIGSEGV, having said this exactly once on stderr.
    Segfaults(&'static str),
    /// Be stopped by SIGSEGV, having said nothing.
    SegfaultsSilently,
}

/// A time limit for a case: an endless loop is a failure, not a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// A C program, built.
pub struct Program {
    name: &'static str,
    pub path: PathBuf,
    link: Link,
}

impl Program {
    /// Builds `c/<name>.c` or `c/<name>.cpp`, the first time it is asked for.
    pub fn built(name: &'static str, link: Link) -> Program {
        static BUILT: Mutex<Option<HashMap<(&'static str, Link), PathBuf>>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let built = built.get_or_insert_default();
        let path = built.entry((name, link)).or_insert_with(|| build(name, link)).clone();
        Program { name, path, link }
    }

    /// Runs a case with `variables` added to its environment.
    pub fn run(&self, case: &str, variables: &[(&str, &str)], expected: Outcome) {
        let mut command = started(&self.path);
        command.arg(case).envs(variables.iter().copied());
        let (name, link) = (self.name, self.link);
        if matches!(link, Link::Local | Link::Global) {
            command.env("HOST_PLUGINS", plugins()).env("HOST_DLOPEN", format!("{link:?}"));
        }
        run(&mut command, &format!("{name} {case} ({link:?})"), expected);
    }
}

/// The command that starts a program, by the emulator in TEST_RUNNER if it is for another architecture.
fn started(program: &Path) -> Command {
    let mut command = Command::new("env");
    command.args(std::env::var("TEST_RUNNER").unwrap_or_default().split_whitespace()).arg(program);
    command
}

/// Runs a program that uses the guest library.
pub fn run(command: &mut Command, what: &str, expected: Outcome) {
    command.env("RUST_BACKTRACE", "0");
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
        Outcome::SaysOnce(text) => status.is_some_and(|s| s.success()) && stderr.matches(text).count() == 1,
        Outcome::Aborts(text) => status.is_some_and(by(libc::SIGABRT)) && stderr.contains(text),
        Outcome::AbortsSaying(texts) => {
            let said = texts.iter().try_fold(&*stderr, |left, text| Some(left.split_once(text)?.1));
            status.is_some_and(by(libc::SIGABRT)) && said.is_some()
        }
        Outcome::Exits(code, text) => status.is_some_and(|s| s.code() == Some(code)) && stderr.contains(text),
        Outcome::Segfaults(text) => {
            status.is_some_and(by(libc::SIGSEGV)) && stderr.matches(text).count() == 1
        }
        Outcome::SegfaultsSilently => status.is_some_and(by(libc::SIGSEGV)) && stderr.is_empty(),
    };
    let status = status.map_or(format!("still running after {LIMIT:?}"), |status| status.to_string());
    assert!(as_expected, "{what}: {status}\n{stdout}\n{stderr}");
    println!("{what}: {}", stdout.lines().last().unwrap_or("ok"));
}

/// Whether it was this signal that stopped a process.
fn by(signal: i32) -> impl Fn(std::process::ExitStatus) -> bool {
    move |status| std::os::unix::process::ExitStatusExt::signal(&status) == Some(signal)
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
    let program = folder("c-hosts").join(format!("{name}-{link:?}"));
    let mut cc = compiler_of(name, &program);
    link_guest(&mut cc, link);
    compile(cc.args(libraries_of(name)));
    program
}

/// Adds what links the guest library.
pub fn link_guest(cc: &mut Command, link: Link) {
    let libraries = libraries();
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
        Link::Local | Link::Global => cc.arg("-ldl"),
    };
}

/// The command that compiles a source of `c/`, all but its libraries.
fn compiler_of(name: &str, to: &Path) -> Command {
    let (source, _, mut cc) = source(name);
    cc.args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(to);
    // A sanitizer's, in its lane.
    cc.args(std::env::var("CFLAGS").unwrap_or_default().split_whitespace());
    // Bound at the start: a case that leaves 1 KiB of stack is about our need of it, not the dynamic linker's.
    cc.arg("-Wl,-z,now").arg(source);
    cc
}

pub fn compile(cc: &mut Command) {
    let output = cc.output().expect("a compiler: install one, or name it in CC or CXX");
    assert!(output.status.success(), "{cc:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The folder with what `c/plugins.c` loads: two copies of the guest library, and a shared object that loads one.
fn plugins() -> &'static Path {
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    PLUGINS.get_or_init(|| {
        let plugins = folder("c-hosts/plugins");
        for copy in ["first.so", "second.so"] {
            std::fs::copy(libraries().join("libguest.so"), plugins.join(copy)).unwrap();
        }
        compile(compiler_of("starts", &plugins.join("starts.so")).args(["-shared", "-fPIC", "-ldl"]));
        plugins
    })
}

/// A folder beside the guest library.
pub fn folder(name: &str) -> PathBuf {
    let folder = libraries().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Where `upcall.h` is.
pub fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/upcall/include")
}

/// Where the guest library is: where HOST_LIBRARIES says, or beside this test's own executable, where Cargo leaves it.
pub fn libraries() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().to_owned();
    std::env::var_os("HOST_LIBRARIES").map_or_else(beside, PathBuf::from)
}

/// The source of a host program, its language, and the command that compiles that.
fn source(name: &str) -> (PathBuf, &'static str, Command) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(name);
    let is_cpp = source.with_extension("cpp").exists();
    let (extension, language, variable, compiler, standard) = if is_cpp {
        ("cpp", "c++", "CXX", "c++", "-std=gnu++17")
    } else {
        ("c", "c", "CC", "cc", "-std=gnu11")
    };
    let mut command = Command::new(std::env::var_os(variable).unwrap_or(compiler.into()));
    command.arg(standard).arg("-I").arg(headers());
    (source.with_extension(extension), language, command)
}

/// What the host program links besides the guest library.
fn libraries_of(name: &str) -> &'static [&'static str] {
    if name == "uv" { &["-luv"] } else { &[] }
}

/// Whether the program `name` can be built here: there is a compiler for it, and `<name>.h` if it links a library; says so if not.
pub fn can_build(name: &str) -> bool {
    let (_, language, mut compiler) = source(name);
    compiler.args(["-shared", "-o", "/dev/null"]);
    if !libraries_of(name).is_empty() {
        compiler.arg("-include").arg(format!("{name}.h"));
    }
    compiler.args(["-x", language, "/dev/null"]).args(libraries_of(name));
    let can = compiler.output().is_ok_and(|output| output.status.success());
    if !can {
        skipped(name, "a compiler or library for it");
    }
    can
}

/// Says that something is not tested for want of something, past the capture of what tests print.
pub fn skipped(what: &str, wants: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {wants} is not installed (ci/packages.sh does)");
}
