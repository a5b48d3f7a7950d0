//! Two libraries with upcall in one program: `libraries/geo` and `libraries/map`, each with its own
//! C names.

#[macro_use]
#[allow(dead_code, unused_macros, reason = "each test file uses a part")]
mod program;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use program::Outcome;

/// The folder in which Cargo leaves the dependencies of this test.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// Builds `c/two_libraries.c`, with `libraries` as arguments to the linker.
fn built(name: &str, libraries: &[String]) -> PathBuf {
    let program = program::folder("c-hosts").join(name);
    let mut cc = program::compiler_of("two_libraries", &program);
    program::compile(cc.args(libraries));
    program
}

fn run_shared(case: &str) {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        let folder = libraries().display().to_string();
        let both = [format!("-L{folder}"), "-lgeo".into(), "-lmap".into(), format!("-Wl,-rpath,{folder}")];
        built("two_libraries-Shared", &both)
    });
    program::run(Command::new(program).arg(case), case, Outcome::Success);
}

macro_rules! shared {
    ($($case:ident)*) => { $(
        #[test]
        fn $case() {
            run_shared(stringify!($case));
        }
    )* };
}

shared! { messages stacks snapshots runtimes workers suspended forks }

#[test]
fn one_static_library_of_two_has_one_upcall() {
    let mut both = vec![libraries().join("libboth.a").display().to_string()];
    both.extend(program::SYSTEM.map(String::from));
    let program = built("two_libraries-Static", &both);
    program::run(Command::new(program).arg("one_copy"), "one_copy", Outcome::Success);
}

#[test]
fn each_exports_what_begins_with_its_name() {
    for (library, prefixes) in [("geo", &["geo_"][..]), ("map", &["map_"]), ("both", &["geo_", "map_"])] {
        let Some(symbols) = program::exported_by(&libraries().join(format!("lib{library}.so"))) else {
            return;
        };
        for prefix in prefixes {
            assert!(symbols.contains(&format!("{prefix}last_message")), "{library}: {symbols:?}");
        }
        let is_own = |symbol: &String| prefixes.iter().any(|prefix| symbol.starts_with(prefix));
        assert!(symbols.iter().all(is_own), "{library}: {symbols:?}");
    }
}
