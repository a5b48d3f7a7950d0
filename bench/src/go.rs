//! The Go toolchain, if there is one, and the Go library of `go/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{output_folder, run};
use crate::{Failure, folder};

/// Finds a working `go`: from the variable `GO`, from `ci/go.sh`, or on the PATH.
pub fn find() -> Option<PathBuf> {
    let fetched = folder().join("../target/go/go/bin/go");
    let candidates = [std::env::var_os("GO").map(PathBuf::from), Some(fetched), Some(PathBuf::from("go"))];
    candidates.into_iter().flatten().find(|go| version(go).is_some())
}

/// The toolchain's version, such as "go1.27.3".
pub fn version(go: &Path) -> Option<String> {
    run(Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))
        .ok()
        .map(|version| version.trim().to_owned())
}

/// Builds the Go library as an archive for C programs. Returns the archive's path.
pub fn build(go: &Path) -> Result<PathBuf, Failure> {
    let output = output_folder()?;
    let archive = output.join("libbenchguest-go.a");
    let mut build = Command::new(go);
    build.args(["build", "-buildmode=c-archive", "-o"]).arg(&archive).arg(".");
    build.current_dir(folder().join("go"));
    build.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod").env("GOCACHE", output.join("go-cache"));
    run(&mut build)?;
    Ok(archive)
}
