//! `cargo xtask header`: writes `upcall.h` from the doc comments and signatures of `crates/upcall/src/capi*.rs`.

use std::fs;
use std::path::PathBuf;

use cbindgen::{Builder, Config, DocumentationStyle, Language, Layout, LineEndingStyle};

use crate::root;

/// What is true of all functions; and the beginning of what is included once.
const INTRODUCTION: &str = "\
/* upcall.h: the C functions of upcall, by which C can call Rust from any thread, on any stack.
 *
 * Every Rust library built on upcall has these functions beside its own. Nothing has to be set up: none
 * of them has to be called before the library's own, or after.
 *
 * Names      begin with upcall_ or UPCALL_.
 * Results    are 0 for done and -1 for not done, or a number that is not negative and -1 for none. On
 *            failure nothing is changed and nothing is written; upcall_last_panic tells why.
 * Threads    Any thread may call, from any stack, at any time, also inside functions that Rust calls.
 *            Where \"the calling thread\" is spoken of, only that thread is concerned.
 * Signals    Handlers may call upcall_version, and no other.
 * Ownership  Strings are copied, or static. Nothing that these functions return is the caller's to free.
 *
 * Written by `cargo xtask header`: change the doc comments in src/capi*.rs, not this file. */
#ifndef UPCALL_H
#define UPCALL_H";

/// What begins the declarations, after the includes; and what ends them.
const BEGIN: &str = "
/* The version of this header; upcall_version() is that of the library. */
#define UPCALL_VERSION \"{version}\"
#define UPCALL_VERSION_MAJOR {major}
#define UPCALL_VERSION_MINOR {minor}
#define UPCALL_VERSION_PATCH {patch}

#ifdef __cplusplus
extern \"C\" {
#endif";
const END: &str = "\
#ifdef __cplusplus
}
#endif
#endif";

/// The committed header.
fn path() -> PathBuf {
    root().join("crates/upcall/include/upcall.h")
}

pub fn write() -> Result<(), String> {
    let text = generated()?;
    fs::write(path(), text).map_err(|error| format!("{}: {error}", path().display()))
}

/// The header as it should be.
fn generated() -> Result<String, String> {
    let sources = root().join("crates/upcall/src");
    let entries = fs::read_dir(&sources).map_err(|error| format!("{}: {error}", sources.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("capi") && name.ends_with(".rs")
    });
    files.sort();
    let builder = Builder::new().with_config(config());
    let bindings = files.into_iter().fold(builder, Builder::with_src).generate();
    let mut text = Vec::new();
    bindings.map_err(|error| format!("cbindgen: {error}"))?.write(&mut text);
    let text = String::from_utf8(text).expect("cbindgen writes what it read, in UTF-8");
    // What a heading is to rustdoc.
    Ok(text.replace(" * # Safety\n", " * What the caller answers for:\n"))
}

fn config() -> Config {
    let begin = BEGIN
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{major}", env!("CARGO_PKG_VERSION_MAJOR"))
        .replace("{minor}", env!("CARGO_PKG_VERSION_MINOR"))
        .replace("{patch}", env!("CARGO_PKG_VERSION_PATCH"));
    let mut config = Config {
        language: Language::C,
        header: Some(INTRODUCTION.to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        after_includes: Some(begin),
        trailer: Some(END.to_owned()),
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        line_endings: LineEndingStyle::LF,
        ..Config::default()
    };
    config.function.args = Layout::Horizontal;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_what_the_source_says() {
        let committed = fs::read_to_string(path()).unwrap_or_default();
        let is_current = committed == generated().unwrap();
        assert!(is_current, "{} is not what the source says: run `cargo xtask header`", path().display());
    }
}
