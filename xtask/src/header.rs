//! `cargo xtask header`: writes `upcall.h` from the doc comments and signatures of
//! `crates/upcall/src/capi/`.

use std::fs;
use std::path::PathBuf;

use cbindgen::{Builder, Config, DocumentationStyle, Language, Layout, LineEndingStyle};

use crate::root;

/// The opening: facts about all functions, and the beginning of the part guarded against repeated
/// inclusion.
const INTRODUCTION: &str = "\
/* upcall.h: the C functions of upcall. With upcall, C can call Rust from any thread, on any stack.
 *
 * A Rust library built on upcall exports these functions beside its own, under a prefix of its
 * choice. Name the prefix before the include:
 *
 *     #define UPCALL_PREFIX geo_
 *     #include \"upcall.h\"
 *
 * This declares geo_last_message, geo_dump and so on. Without a prefix, the names are
 * upcall_last_message, upcall_dump. The include uses the definition up: for a second library,
 * define it again and include the file again.
 *
 * Nothing needs set-up: none of these functions has to be called before or after the library's own.
 *
 * Names      The comments leave the prefix out. A library may export fewer functions than declared:
 *            local_* and coroutines_* exist only if its author lets C run fibers.
 * Copies     Each library has its own upcall, with its own messages, threads, fibers and workers.
 *            Register a stack with each library called on it.
 * Results    0 or a number ≥ 0 on success, -1 on failure. On failure nothing is changed and nothing
 *            is written; last_message tells the reason.
 * Threads    Any thread may call, from any stack, at any time, inside functions called by Rust.
 *            If a comment speaks of the calling thread, it concerns only this thread.
 * Signals    Handlers may call version, and no other function.
 * Ownership  Strings are copied, or static. The caller frees nothing returned by these functions.
 *            memory_free frees what the library's own functions return, if they say so.
 * Tasks      A task is an opaque pointer, and not an address: one that is null, freed or of another
 *            kind is an error. Its owner frees it by task_free.
 *
 * Written by `cargo xtask header`. Change the doc comments in src/capi/, not this file. */
#ifndef UPCALL_H
#define UPCALL_H";

/// The lines after the includes: they end the guarded part, and begin the declarations.
const BEGIN: &str = "
/* The version of this header, or of the first one if libraries bring different ones. The function
 * version() returns the library's. */
#define UPCALL_VERSION \"{version}\"
#define UPCALL_VERSION_MAJOR {major}
#define UPCALL_VERSION_MINOR {minor}
#define UPCALL_VERSION_PATCH {patch}

/* The results of functions whose author returns a Status, as an int. */
enum upcall_status {
    UPCALL_OK = 0,
    /* The function failed. last_message tells the reason, here and below. */
    UPCALL_ERROR = -1,
    /* A bug: the function panicked. */
    UPCALL_PANIC = -2,
    /* The function was not run: there was no stack for it, for example. */
    UPCALL_REFUSED = -3
};

/* UPCALL_NAME(dump) is the library's name of the function dump. */
#define UPCALL_NAME(name) UPCALL_EXPAND(UPCALL_PREFIX, name)
#define UPCALL_EXPAND(prefix, name) UPCALL_PASTE(prefix, name)
#define UPCALL_PASTE(prefix, name) prefix##name

/* The status of a task, as an int: it runs, or the kind of its end. */
enum {
  UPCALL_TASK_RUNNING = 0,           /* it has not ended */
  UPCALL_TASK_DONE = 1,              /* it has a value */
  UPCALL_TASK_FAILED = 2,            /* it ended with an error */
  UPCALL_TASK_PANICKED = 3,          /* it panicked */
  UPCALL_TASK_CANCELLED = 4,         /* task_cancel or task_free ended it */
  UPCALL_TASK_DEADLINE_EXCEEDED = 5, /* its deadline came first */
  UPCALL_TASK_LOST = 6               /* its executor has ended, or runs in the parent process only */
};

/* Flags of coroutines_install. */
enum {
  UPCALL_COROUTINES_PROCESS = 1,     /* for all threads of the process */
  UPCALL_COROUTINES_STACKS_MOVE = 2  /* the host copies the stack of a suspended coroutine away */
};
#endif

#ifndef UPCALL_PREFIX
#define UPCALL_PREFIX upcall_
#endif

/* Two headers may include this one for the same library. */
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored \"-Wredundant-decls\"
#ifdef __clang__
#pragma clang diagnostic ignored \"-Wtypedef-redefinition\"
#else
#pragma GCC diagnostic ignored \"-Wpedantic\"
#endif
#endif

#ifdef __cplusplus
extern \"C\" {
#endif

/* A task: an asynchronous operation, started by a function of the library's own. */
typedef struct UPCALL_NAME(task) UPCALL_NAME(task);";
const END: &str = "\
#ifdef __cplusplus
}
#endif

#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
#undef UPCALL_PREFIX";

/// The files with the functions, and the condition under which each of them exists.
const FILES: [(&str, &str); 9] = [
    ("mod.rs", ""),
    ("coroutines.rs", ""),
    ("descriptors.rs", "#[cfg(not(event_objects))]\n"),
    ("dump.rs", ""),
    ("event_objects.rs", "#[cfg(event_objects)]\n"),
    ("memory.rs", ""),
    ("runtime.rs", ""),
    ("stacks.rs", ""),
    ("task.rs", ""),
];

/// A parameter passed by `c_api!` and not by C, used or not.
const RUST_PARAMETERS: [&str; 2] = ["\n    _fibers: Fibers,", "\n    fibers: Fibers,"];

/// The path of the committed header.
fn path() -> PathBuf {
    root().join("crates/upcall/include/upcall.h")
}

pub fn write() -> Result<(), String> {
    let text = generated()?;
    fs::write(path(), text).map_err(|error| format!("{}: {error}", path().display()))
}

/// Generates the header.
fn generated() -> Result<String, String> {
    let folder = root().join("crates/upcall/src/capi");
    let mut copies = Vec::new();
    for (name, condition) in FILES {
        let file = folder.join(name);
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let copy =
            std::env::temp_dir().join(format!("upcall-header-{}-{}.rs", std::process::id(), copies.len()));
        fs::write(&copy, as_exported(&text, condition))
            .map_err(|error| format!("{}: {error}", copy.display()))?;
        copies.push(copy);
    }
    let builder = Builder::new().with_config(config());
    let bindings = copies.iter().fold(builder, Builder::with_src).generate();
    copies.iter().for_each(|copy| _ = fs::remove_file(copy));
    let mut text = Vec::new();
    bindings.map_err(|error| format!("cbindgen: {error}"))?.write(&mut text);
    let text = String::from_utf8(text).expect("cbindgen writes what it read, in UTF-8");
    // Replaces rustdoc's heading by words for C programmers.
    let text = text.replace(" * # Safety\n", " * Requirements:\n");
    Ok(text.lines().map(|line| with_prefix(line) + "\n").collect())
}

/// The source, with its public functions as exported by `c_api!`, but without the prefix. Each has
/// the condition, an attribute or nothing.
fn as_exported(source: &str, condition: &str) -> String {
    RUST_PARAMETERS
        .iter()
        .fold(source.to_owned(), |source, parameter| source.replace(parameter, ""))
        .replace("\npub fn ", &format!("\n#[unsafe(no_mangle)]\n{condition}pub extern \"C\" fn "))
        .replace(
            "\npub unsafe fn ",
            &format!("\n#[unsafe(no_mangle)]\n{condition}pub unsafe extern \"C\" fn "),
        )
}

/// Puts a declared function's name into `UPCALL_NAME()`, if the line declares one.
fn with_prefix(line: &str) -> String {
    let is_other = [" *", "/*", "typedef"].iter().any(|begin| line.starts_with(begin));
    match line.split_once('(') {
        Some((before, after)) if !is_other && line.ends_with(");") => {
            let at = before.rfind([' ', '*']).map_or(0, |at| at + 1);
            let after = after.replace("Task *", "UPCALL_NAME(task) *");
            format!("{}UPCALL_NAME({})({after}", &before[..at], &before[at..])
        }
        _ => line.to_owned(),
    }
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
    config.defines.insert("event_objects".to_owned(), "_WIN32".to_owned());
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
