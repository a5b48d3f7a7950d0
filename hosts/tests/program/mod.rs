//! Builds a C program against the guest library and runs its cases.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Declares a test for each case of a C program; `=> Outcome` for a case that does more than exit
/// with 0.
///
/// `program`, `Outcome` and `Program` must be in scope.
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

/// How the program gets the guest library: linked, or loaded by `dlopen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    Static,
    Shared,
    /// Loaded with `RTLD_LOCAL`, or by Windows.
    Local,
    /// Loaded with `RTLD_GLOBAL`.
    Global,
}

/// The ways to link the guest library for the program `name`: statically, and with
/// `HOST_LINKS=all` as a shared library, too.
pub fn links_of(name: &str) -> &'static [Link] {
    static ALL: OnceLock<bool> = OnceLock::new();
    let is_all = || std::env::var_os("HOST_LINKS").is_some_and(|links| links == "all");
    match name {
        "plugins" if on_windows() => &[Link::Local],
        "plugins" => &[Link::Local, Link::Global],
        _ if *ALL.get_or_init(is_all) => &[Link::Static, Link::Shared],
        _ => &[Link::Static],
    }
}

/// Whether the host programs are built for Windows, according to their compiler.
#[allow(dead_code, reason = "not each test file asks")]
pub fn on_windows() -> bool {
    static ON_WINDOWS: OnceLock<bool> = OnceLock::new();
    *ON_WINDOWS.get_or_init(|| {
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
        let target = compiler.arg("-dumpmachine").output();
        target.is_ok_and(|target| String::from_utf8_lossy(&target.stdout).contains("mingw"))
    })
}

/// Whether the host programs are built with musl, as HOST_LIBC says.
#[allow(dead_code, reason = "not each test file asks")]
pub fn on_musl() -> bool {
    std::env::var_os("HOST_LIBC").is_some_and(|name| name == "musl")
}

/// The expected end of a case.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "not each test file expects them all")]
pub enum Outcome {
    /// Exits with 0.
    Success,
    /// Exits with 0, having printed this.
    Prints(&'static str),
    /// Exits with 0, having written this exactly once to stderr.
    SaysOnce(&'static str),
    /// Is aborted, having written this to stderr.
    Aborts(&'static str),
    /// Is aborted, having written all of these to stderr, in this order.
    AbortsSaying([&'static str; 5]),
    /// Exits with this status, having written this to stderr.
    Exits(i32, &'static str),
    /// Is killed by SIGSEGV, having written this exactly once to stderr.
    Segfaults(&'static str),
    /// Is killed by SIGSEGV, having written nothing to stderr.
    SegfaultsSilently,
}

/// The time limit of a case. It turns an endless loop into a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// A C program, already built.
pub struct Program {
    name: &'static str,
    pub path: PathBuf,
    link: Link,
}

impl Program {
    /// Builds `c/<name>.c` or `c/<name>.cpp`. Later calls for the same program reuse the result.
    pub fn built(name: &'static str, link: Link) -> Program {
        static BUILT: Mutex<Option<HashMap<(&'static str, Link), PathBuf>>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let built = built.get_or_insert_default();
        let path = built.entry((name, link)).or_insert_with(|| build(name, link)).clone();
        Program { name, path, link }
    }

    /// Runs a case with `variables` added to its environment, and checks its end.
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

/// The command for a program, run by the emulator named in TEST_RUNNER, if any.
pub fn started(program: &Path) -> Command {
    let mut command = Command::new("env");
    command.args(std::env::var("TEST_RUNNER").unwrap_or_default().split_whitespace()).arg(program);
    command
}

/// Runs a program that uses the guest library, and checks its end.
pub fn run(command: &mut Command, what: &str, expected: Outcome) {
    command.env("RUST_BACKTRACE", "0");
    // The stacks of these programs are small, and many of their upcalls must run in place.
    if !command.get_envs().any(|(name, _)| name == "UPCALL_MIN_STACK") {
        command.env("UPCALL_MIN_STACK", "131072");
    }
    // Cargo's value points to a folder where another build may have left an older guest library.
    command.env_remove("LD_LIBRARY_PATH");
    // The guest does not use tokio. A runtime would add threads, and signals may arrive on those.
    command.env("UPCALL_TOKIO_RUNTIME", "none");
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
        Outcome::Aborts(text) => status.is_some_and(aborted) && stderr.contains(text),
        Outcome::AbortsSaying(texts) => {
            let said = texts.iter().try_fold(&*stderr, |left, text| Some(left.split_once(text)?.1));
            status.is_some_and(aborted) && said.is_some()
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

/// Checks whether a process ended by an abort: by SIGABRT, or with 0xC0000409 on Windows.
///
/// Wine exits with the low byte of that.
pub fn aborted(status: ExitStatus) -> bool {
    if on_windows() { status.code() == Some(9) } else { by(libc::SIGABRT)(status) }
}

/// A check whether `signal` killed a process.
fn by(signal: i32) -> impl Fn(ExitStatus) -> bool {
    move |status| std::os::unix::process::ExitStatusExt::signal(&status) == Some(signal)
}

/// Reads a pipe to its end on another thread, so the child never blocks on a full pipe.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the child. After the time limit, kills it and returns `None`.
fn wait(child: &mut Child) -> Option<ExitStatus> {
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
    let mut program = folder("c-hosts").join(format!("{name}-{link:?}"));
    if on_windows() {
        program.set_extension("exe");
    }
    let mut cc = compiler_of(name, &program);
    link_guest(&mut cc, link);
    let cpp = format!("{name}_catch");
    if source(&cpp).0.exists() && can_build(&cpp) {
        let object = program.with_extension("o");
        compile(compiler_of(&cpp, &object).arg("-c"));
        cc.arg(object).arg("-lstdc++");
    }
    compile(&mut cc);
    program
}

/// The dependencies of a static library on Linux, from `rustc --print native-static-libs`.
pub const SYSTEM: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

/// The dependencies of a static library on Windows.
pub const SYSTEM_OF_WINDOWS: [&str; 6] =
    ["-ladvapi32", "-lntdll", "-luserenv", "-lws2_32", "-ldbghelp", "-lsynchronization"];

/// Adds the arguments for linking the guest library.
pub fn link_guest(cc: &mut Command, link: Link) {
    let libraries = libraries();
    match link {
        Link::Static if on_windows() => cc.arg(libraries.join("libguest.a")).args(SYSTEM_OF_WINDOWS),
        Link::Shared if on_windows() => {
            // A program finds the library beside itself.
            std::fs::copy(libraries.join("guest.dll"), folder("c-hosts").join("guest.dll")).unwrap();
            cc.arg(libraries.join("libguest.dll.a"))
        }
        _ if on_windows() => cc,
        Link::Static => cc.arg(libraries.join("libguest.a")).args(SYSTEM),
        Link::Shared => {
            cc.arg("-L").arg(&libraries).arg("-lguest").arg(format!("-Wl,-rpath,{}", libraries.display()))
        }
        Link::Local | Link::Global => cc.arg("-ldl"),
    };
}

/// The compiler command for a source of `c/`, without libraries.
pub fn compiler_of(name: &str, to: &Path) -> Command {
    let (source, _, mut cc) = source(name);
    cc.args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(to);
    // The flags of a sanitizer, in its lane.
    cc.args(std::env::var("CFLAGS").unwrap_or_default().split_whitespace());
    if on_windows() {
        // The libraries of the compiler, which Windows lacks, and a main stack as large as Linux's.
        cc.args(["-static", "-Wl,--stack,8388608"]);
    } else {
        // Binds symbols at the start. So a case with 1 KiB of stack remaining measures our need of
        // stack, not the dynamic linker's.
        cc.arg("-Wl,-z,now");
    }
    cc.arg(source);
    cc
}

pub fn compile(cc: &mut Command) {
    let output = cc.output().expect("a compiler: install one, or name it in CC or CXX");
    assert!(output.status.success(), "{cc:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The folder for `c/plugins.c`: two copies of the guest library, and a shared object that loads
/// one of them.
fn plugins() -> &'static Path {
    static PLUGINS: OnceLock<PathBuf> = OnceLock::new();
    PLUGINS.get_or_init(|| {
        let plugins = folder("c-hosts/plugins");
        let (library, extension) = if on_windows() { ("guest.dll", "dll") } else { ("libguest.so", "so") };
        for copy in ["first", "second"] {
            let copy = plugins.join(copy).with_extension(extension);
            std::fs::copy(libraries().join(library), copy).unwrap();
        }
        if on_windows() {
            return plugins;
        }
        compile(compiler_of("starts", &plugins.join("starts.so")).args(["-shared", "-fPIC", "-ldl"]));
        plugins
    })
}

/// The symbols exported by a shared library, if `nm` is installed.
#[allow(dead_code, reason = "not each test file asks")]
pub fn exported_by(library: &Path) -> Option<BTreeSet<String>> {
    let Ok(nm) = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output() else {
        skipped("the list of exported symbols", "nm");
        return None;
    };
    assert!(nm.status.success(), "{nm:?}");
    let listed = String::from_utf8(nm.stdout).unwrap();
    Some(listed.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect())
}

/// A folder beside the guest library, created if needed.
pub fn folder(name: &str) -> PathBuf {
    let folder = libraries().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The folder of `upcall.h`.
pub fn headers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/upcall/include")
}

/// The folder of the guest library: HOST_LIBRARIES, or the folder of this test's executable, where
/// Cargo leaves it.
pub fn libraries() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().to_owned();
    std::env::var_os("HOST_LIBRARIES").map_or_else(beside, PathBuf::from)
}

/// The source of a host program, its language, and the compiler command for that language.
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

/// Checks whether there is a compiler for the program `name`, and reports it if not.
pub fn can_build(name: &str) -> bool {
    let (_, language, mut compiler) = source(name);
    // The linker for Windows needs a file that it can read again.
    let way = if on_windows() { "-c" } else { "-shared" };
    compiler.args([way, "-o", "/dev/null", "-x", language, "/dev/null"]);
    let can = compiler.output().is_ok_and(|output| output.status.success());
    if !can {
        skipped(name, "a compiler for it");
    }
    can
}

/// Reports a skipped test and the missing tool, past the test harness's capture of output.
pub fn skipped(what: &str, wants: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {wants} is not installed (ci/packages.sh does)");
}
