//! The builds of the C programs in `c/` and `waiting/c/`, each linked to one library.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, folder};

/// The library called by a program.
#[derive(Clone, Copy)]
pub enum Library<'a> {
    /// The Rust library as an archive.
    Static,
    /// The Rust library as a shared object.
    Shared,
    /// The Go library, as the archive at this path.
    Go(&'a Path),
}

/// The subject of a program's measurements.
#[derive(Clone, Copy)]
pub enum Measured {
    /// Upcalls and downcalls: the sources of `c/`, and this crate's Rust library.
    Calls,
    /// Waits: the sources and the library of `waiting/`.
    Waiting,
}

/// The folder of the built programs, beside this executable.
pub fn output_folder() -> Result<PathBuf, Failure> {
    let folder = beside_executable("bench-programs")?;
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn beside_executable(name: &str) -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.parent().ok_or("this executable is in no folder")?.join(name))
}

/// Compiles the C sources and links them to `library`. Returns the program's path.
pub fn build(measured: Measured, library: Library) -> Result<PathBuf, Failure> {
    let (name, sources) = match measured {
        Measured::Calls => ("guest", c_sources("c")?),
        Measured::Waiting => {
            ("waiting", [c_sources("waiting/c")?, vec![folder().join("c/measure.c")]].concat())
        }
    };
    // The library that Cargo built for this executable. A folder higher, an older build may remain.
    let rust =
        |ending: &str| beside_executable("deps").map(|deps| deps.join(format!("libbench{name}.{ending}")));
    let (linked, archive, system) = match library {
        Library::Static => {
            let system: &[&str] = &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];
            ("static", rust("a")?, system)
        }
        Library::Shared => ("shared", rust("so")?, &["-lpthread"][..]),
        Library::Go(archive) => ("go", archive.to_owned(), &["-lpthread"][..]),
    };
    let program = output_folder()?.join(format!("{name}-{linked}"));
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror"]);
    if let Library::Go(_) = library {
        cc.arg("-DGO_GUEST");
    }
    // Strips debug information: valgrind reads it, and does not understand all of it.
    run(cc.args(sources).arg(archive).args(system).arg("-s").arg("-o").arg(&program))?;
    Ok(program)
}

fn c_sources(below: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut sources = Vec::new();
    for file in std::fs::read_dir(folder().join(below))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    Ok(sources)
}

/// Runs a command to its end. Returns its output.
pub fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(
            format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
