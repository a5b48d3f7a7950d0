//! `upcall.hpp`: a C++20 program with coroutines, futures and objects of two libraries,
//! `libraries/geo` and `libraries/map`.

#[macro_use]
#[allow(dead_code, unused_macros, reason = "each test file uses a part")]
mod program;

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use program::Outcome;

const WARNINGS: &str = "-Wall -Wextra -Wpedantic -Wundef -Wshadow -Wconversion -Wcast-qual -Wredundant-decls -Wwrite-strings -Werror";

/// The compilers to test: the one in `CXX`, otherwise all that are installed.
fn compilers() -> Vec<String> {
    if let Ok(compiler) = env::var("CXX") {
        return vec![compiler];
    }
    let is_there = |compiler: &String| {
        let is_there = Command::new(compiler).arg("--version").output().is_ok();
        if !is_there {
            program::skipped(&format!("upcall.hpp, {compiler}"), compiler);
        }
        is_there
    };
    ["g++", "clang++"].map(String::from).into_iter().filter(is_there).collect()
}

/// A compiler command with all warnings as errors.
fn cpp(compiler: &str) -> Command {
    let mut cpp = Command::new(compiler);
    cpp.args(["-std=c++20", "-O2", "-g", "-pthread", "-I"]).arg(program::headers());
    cpp.args(WARNINGS.split(' '));
    cpp.args(env::var("CFLAGS").unwrap_or_default().split_whitespace());
    cpp
}

/// The name of a compiler without its folder.
fn file_name(compiler: &str) -> &str {
    compiler.rsplit('/').next().unwrap()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(name)
}

/// Builds `c/awaits.cpp` from two files that include the header. Later calls reuse the result.
fn built(compiler: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let build = || {
        let name = file_name(compiler);
        let program = program::folder("c-hosts").join(format!("awaits-{name}"));
        let libraries = env::current_exe().unwrap().parent().unwrap().display().to_string();
        let mut cpp = cpp(compiler);
        cpp.arg("-o").arg(&program).args([source("awaits.cpp"), source("awaits_elsewhere.cpp")]);
        cpp.args([format!("-L{libraries}"), "-lgeo".into(), "-lmap".into()]);
        cpp.arg(format!("-Wl,-rpath,{libraries}"));
        program::compile(&mut cpp);
        program
    };
    built.get_or_insert_default().entry(compiler.to_owned()).or_insert_with(build).clone()
}

macro_rules! awaits {
    ($($case:ident)*) => { $(
        #[test]
        fn $case() {
            for compiler in compilers() {
                let case = stringify!($case);
                let mut command = Command::new(built(&compiler));
                program::run(command.arg(case), &format!("{case} ({compiler})"), Outcome::Success);
            }
        }
    )* };
}

awaits! {
    at_once in_time errors stopped_before stopped_by_starter stopped_during stopped_at_the_end
    stopped_after abandoned abandoned_on_worker with_executor futures tasks objects stacks
    on_threads
}

/// Compiles `text` alone. Returns the compiler's messages, empty on success.
fn messages(compiler: &str, flags: &[&str], text: &str) -> String {
    /// Tests run at the same time.
    static TEXTS: AtomicUsize = AtomicUsize::new(0);
    let (name, number) = (file_name(compiler), TEXTS.fetch_add(1, Relaxed));
    let file = program::folder("c-hosts").join(format!("hpp-{name}-{number}.cpp"));
    std::fs::write(&file, text).unwrap();
    let output = cpp(compiler).args(flags).arg("-fsyntax-only").arg(&file).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), messages.is_empty(), "{messages}");
    messages
}

#[test]
fn the_header_stands_alone_beside_upcall_h_and_for_each_library() {
    let text = "#include \"upcall.h\"
#define UPCALL_NAMESPACE outer::inner
#include \"upcall.hpp\"
#define UPCALL_PREFIX geo_
#include \"upcall.h\"
#define UPCALL_PREFIX geo_
#define UPCALL_NAMESPACE geo
#include \"upcall.hpp\"
#define UPCALL_PREFIX geo_
#include \"upcall.h\"
#if defined UPCALL_PREFIX || defined UPCALL_NAMESPACE
#error \"an include uses the definitions up\"
#endif
static_assert(sizeof(outer::inner::task<int>) == sizeof(geo::task<int>));
";
    for compiler in compilers() {
        for flags in [&[][..], &["-std=c++23"], &["-O0", "-fno-rtti"]] {
            // An older clang names its C++23 otherwise.
            let flags =
                if compiler.contains("clang") && flags == ["-std=c++23"] { &["-std=c++2b"] } else { flags };
            assert_eq!(messages(&compiler, flags, text), "", "{compiler} {flags:?}");
        }
    }
}

#[test]
fn the_header_says_what_it_needs() {
    let header = "#define UPCALL_NAMESPACE geo\n#include \"upcall.hpp\"\n";
    for compiler in compilers() {
        let told = |flags: &[&str], text, expected| {
            let messages = messages(&compiler, flags, text);
            assert!(messages.contains(expected), "{compiler}: {messages}");
        };
        told(&["-std=c++17"], header, "compile with -std=c++20");
        told(&["-fno-exceptions"], header, "compile without -fno-exceptions");
        told(&[], "#include \"upcall.hpp\"\n", "define UPCALL_NAMESPACE before the include");
    }
}
