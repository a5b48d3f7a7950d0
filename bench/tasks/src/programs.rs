//! The C program of `c/`, built with each library in turn.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, folder};

/// A library of tasks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Library {
    /// tokio, with callbacks by hand.
    Hand,
    /// upcall with its own workers.
    Upcall,
    /// upcall with its feature `tokio`.
    OnTokio,
    /// upcall with its own workers, awaited by a C++ coroutine.
    CoAwait,
    UniFfi,
    CxxAsync,
    Go,
    /// tokio's own tasks, without callbacks: for their memory.
    Spawn,
}

impl Library {
    pub const ALL: [Self; 8] = [
        Self::Hand,
        Self::Upcall,
        Self::OnTokio,
        Self::CoAwait,
        Self::UniFfi,
        Self::CxxAsync,
        Self::Go,
        Self::Spawn,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Hand => "by hand on tokio",
            Self::Upcall => "upcall, workers",
            Self::OnTokio => "upcall, tokio",
            Self::CoAwait => "upcall, `co_await`",
            Self::UniFfi => "UniFFI",
            Self::CxxAsync => "cxx-async",
            Self::Go => "Go",
            Self::Spawn => "tokio::spawn",
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Self::Upcall | Self::OnTokio | Self::CoAwait)
    }

    /// Whether it can run a scene. cxx-async has no cancellation, and the coroutine for upcall asks
    /// for none. If a future wakes itself in its poll, cxx-async waits for a lock that it holds.
    pub fn runs(self, scene: &str) -> bool {
        match self {
            Self::CxxAsync => scene.ends_with(" 0"),
            Self::CoAwait => scene != "cancels",
            _ => true,
        }
    }

    /// The crate of the library, and the macro that selects it in `c/libraries.c`.
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Hand => ("hand", "HAND"),
            Self::Upcall => ("upcall", "UPCALL"),
            Self::OnTokio => ("tokio", "UPCALL"),
            Self::CoAwait => ("upcall", "CXX_ASYNC"),
            Self::UniFfi => ("uniffi", "UNIFFI"),
            Self::CxxAsync => ("cxx", "CXX_ASYNC"),
            Self::Go => ("go", "GO"),
            Self::Spawn => ("hand", "SPAWN"),
        }
    }
}

/// Builds the program with `library`. Returns its path.
///
/// Each library is a build of its own, so that their features do not unify.
pub fn build(library: Library) -> Result<PathBuf, Failure> {
    let (name, selected) = library.parts();
    let output = std::env::current_exe()?.parent().ok_or("this executable is in no folder")?.to_owned();
    let archive = match library {
        Library::Go => build_go(&output)?,
        _ => {
            let package = format!("benchtasks-{name}");
            let mut cargo = Command::new(env!("CARGO"));
            run(cargo.args(["build", "--release", "--quiet", "-p", &package]).current_dir(folder()))?;
            output.join(format!("libbenchtasks_{name}.a"))
        }
    };
    let program = output.join(format!("tasks-{}", selected.to_lowercase() + "-" + name));
    let mut cc = compiler("CC", "cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-D", selected]);
    cc.arg("-I").arg(folder().join("../../crates/upcall/include"));
    cc.args(["c/main.c", "c/libraries.c"]).current_dir(folder());
    if library == Library::CoAwait {
        cc.arg(build_coroutine(&output)?);
    }
    cc.arg(archive);
    if matches!(library, Library::CxxAsync | Library::CoAwait) {
        cc.arg("-lstdc++");
    }
    run(cc.args(["-lgcc_s", "-lpthread", "-lm", "-ldl", "-o"]).arg(&program))?;
    Ok(program)
}

fn compiler(variable: &str, usual: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or(usual.into()))
}

/// Compiles the coroutine that awaits upcall's tasks. Returns the object file.
fn build_coroutine(output: &Path) -> Result<PathBuf, Failure> {
    let object = output.join("awaits.o");
    let mut cpp = compiler("CXX", "c++");
    cpp.args(["-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-c", "c/awaits.cpp"]);
    cpp.arg("-I").arg(folder().join("../../crates/upcall/include")).current_dir(folder());
    run(cpp.arg("-o").arg(&object))?;
    Ok(object)
}

fn build_go(output: &Path) -> Result<PathBuf, Failure> {
    let fetched = folder().join("../../target/go/go/bin/go");
    let candidates = [std::env::var_os("GO").map(PathBuf::from), Some(fetched), Some(PathBuf::from("go"))];
    let works = |go: &PathBuf| run(Command::new(go).arg("version")).is_ok();
    let go = candidates.into_iter().flatten().find(works).ok_or("no Go: ci/go.sh fetches it")?;
    let archive = output.join("libbenchtasks-go.a");
    let mut build = Command::new(go);
    build.args(["build", "-buildmode=c-archive", "-o"]).arg(&archive).arg(".");
    build.current_dir(folder().join("go"));
    build.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod").env("GOCACHE", output.join("go-cache"));
    run(&mut build)?;
    Ok(archive)
}

/// Runs a command to its end. Returns its output.
pub fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{told}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
