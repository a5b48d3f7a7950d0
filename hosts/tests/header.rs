//! `upcall.h` in C and C++ programs, and the symbols exported by a library built on upcall.

#[macro_use]
#[allow(dead_code, unused_macros, reason = "each test file uses a part")]
mod program;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use program::{Link, Outcome};

const WARNINGS: &str = "-Wall -Wextra -Wpedantic -Wundef -Wshadow -Wconversion -Wcast-qual -Wredundant-decls -Wwrite-strings -Werror";
const C_WARNINGS: &str = "-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wc++-compat";
const CLANG_WARNINGS: &str = "-Wdocumentation -Wreserved-identifier -Wcomma";

#[test]
fn every_compiler_takes_it_and_finds_every_function() {
    for (compiler, standard, extension) in [
        ("gcc", "c89", "c"),
        ("gcc", "c99", "c"),
        ("gcc", "c11", "c"),
        ("gcc", "c17", "c"),
        ("g++", "c++98", "cpp"),
        ("g++", "c++17", "cpp"),
        ("clang", "c99", "c"),
        ("clang", "c17", "c"),
        ("clang++", "c++17", "cpp"),
    ] {
        if Command::new(compiler).arg("--version").output().is_err() {
            program::skipped(&format!("upcall.h, {compiler} -std={standard}"), compiler);
            continue;
        }
        for link in [Link::Static, Link::Shared] {
            takes_it(compiler, standard, extension, link);
        }
    }
}

fn takes_it(compiler: &str, standard: &str, extension: &str, link: Link) {
    let name = format!("{compiler} -std={standard} ({link:?})");
    let program = program::folder("c-hosts").join(format!("header-{compiler}-{standard}-{link:?}"));
    let source = program.with_extension(extension);
    fs::write(&source, names_every_function()).unwrap();
    let mut cc = Command::new(compiler);
    cc.arg(format!("-std={standard}")).args(WARNINGS.split(' ')).arg("-I").arg(program::headers());
    if extension == "c" {
        cc.args(C_WARNINGS.split(' '));
    }
    if compiler.starts_with("clang") {
        cc.args(CLANG_WARNINGS.split(' '));
    }
    cc.args(std::env::var("CFLAGS").unwrap_or_default().split_whitespace());
    cc.arg("-o").arg(&program).arg(source);
    program::link_guest(&mut cc, link);
    program::compile(&mut cc);
    program::run(&mut Command::new(program), &name, Outcome::Success);
}

/// A program that includes the header first, and twice, and takes the address of every function.
///
/// Further includes declare the functions of another library, also twice.
fn names_every_function() -> String {
    let mut source = String::from("#include \"upcall.h\"\n#include \"upcall.h\"\n");
    for prefix in ["geo_", "geo_", "upcall_"] {
        writeln!(source, "#define UPCALL_PREFIX {prefix}\n#include \"upcall.h\"").unwrap();
    }
    source += "#include <string.h>\n\ntypedef void (*function)(void);\nstatic const volatile function functions[] = {\n";
    for name in declared() {
        writeln!(source, "    (function)&{name},").unwrap();
    }
    source
        + "};

int main(void) {
    size_t i;
    for (i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (!functions[i])
            return 1;
    return strcmp(upcall_version(), UPCALL_VERSION) ? 2 : 0;
}
"
}

#[test]
fn a_library_exports_these_functions_and_its_own_and_nothing_else() {
    let library = program::libraries().join("libguest.so");
    let Some(symbols) = program::exported_by(&library) else { return };
    let others: BTreeSet<String> =
        symbols.into_iter().filter(|symbol| !symbol.starts_with("guest_")).collect();
    assert_eq!(others, declared());
}

/// The functions declared by the header, under the prefix `upcall_`, except for those of Windows.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(program::headers().join("upcall.h")).unwrap();
    let mut parts = header.split("#if defined(_WIN32)");
    let first = parts.next().unwrap();
    let header = parts.fold(first.to_owned(), |all, part| all + part.split_once("#endif").unwrap().1);
    let code = header.lines().filter(|line| line.ends_with(");") && !line.starts_with("typedef"));
    let names = code.filter_map(|line| {
        let after = line.split_once("UPCALL_NAME(")?.1;
        Some(format!("upcall_{}", after.split_once(')')?.0))
    });
    names.collect()
}
