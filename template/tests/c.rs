//! Builds the C program of `examples/` and runs it, with the static and with the shared library.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The system libraries of the static library: `rustc --print native-static-libs` prints them.
const SYSTEM: [&str; 7] = [
    "-lgcc_s",
    "-lutil",
    "-lrt",
    "-lpthread",
    "-lm",
    "-ldl",
    "-lc",
];

/// Cargo's folder of the libraries for this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    test.parent().expect("a file is in a folder").to_owned()
}

/// Builds the program with the linker arguments `library`. Returns the command to run it.
fn built(name: &str, library: &[String]) -> Command {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = libraries().join(name);
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
    cc.args([
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-o",
    ])
    .arg(&program);
    cc.arg("-I")
        .arg(package.join("include"))
        .arg(package.join("examples/main.c"))
        .args(library);
    let status = cc
        .status()
        .expect("a C compiler: install one, or name it in CC");
    assert!(status.success(), "{cc:?}");
    let mut run = Command::new(program);
    run.current_dir(package).env_remove("LD_LIBRARY_PATH");
    run
}

fn printed(output: Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}: {err}", output.status);
    out.into_owned()
}

fn counts_words(mut program: Command) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = printed(program.output().unwrap());
    assert_eq!(
        text,
        "   1 and\n   1 cat\n   1 dog\n   2 the\n   5 words in all\n"
    );
    assert!(
        printed(
            program
                .arg(package.join("examples/main.c"))
                .output()
                .unwrap()
        )
        .contains(" printf")
    );
    let output = program.arg("no-such-file").output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no-such-file: No such file"),
        "{output:?}"
    );
}

#[test]
fn a_c_program_counts_words_with_the_static_library() {
    let mut library = vec![libraries().join("lib{{crate_name}}.a").display().to_string()];
    library.extend(SYSTEM.map(String::from));
    counts_words(built("main-static", &library));
}

#[test]
fn a_c_program_counts_words_with_the_shared_library() {
    let folder = libraries().display().to_string();
    counts_words(built(
        "main-shared",
        &[
            format!("-L{folder}"),
            "-l{{crate_name}}".into(),
            format!("-Wl,-rpath,{folder}"),
        ],
    ));
}
