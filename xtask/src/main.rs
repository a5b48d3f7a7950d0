//! `cargo xtask …`: the project's chores besides building it.

mod guide;
mod header;
mod hosts;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask guide
    writes the guide as pages, for readers of the repository
cargo xtask header
    writes upcall.h from the C API's source
cargo xtask hosts [--install] [--all] [name…]
    runs upcall in hosts that nobody here wrote, and prints a table
    --install   gets their packages first (apt; as root)
    --all       a host that is absent is a failure
cargo xtask tidy
    checks prose, commits' subjects, and imports against ARCHITECTURE's rooms";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.split_first() {
        Some((&"guide", [])) => guide::write(),
        Some((&"header", [])) => header::write(),
        Some((&"hosts", rest)) => hosts::run(rest),
        Some((&"tidy", [])) => tidy::run(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The project's folder.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is in the project's folder").to_owned()
}
