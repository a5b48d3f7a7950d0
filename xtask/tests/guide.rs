//! Checks that the guide's C code compiles. rustdoc tests its Rust code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/upcall")
}

/// The code of a chapter in one language, as shown to readers.
fn code<'a>(chapter: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("```{language}\n");
    let blocks = chapter.split(&begin).skip(1);
    blocks.map(|block| block.split("```").next().expect("a split has a first part")).collect()
}

/// Makes a folder with the header of the library in the first chapter, as written by cbindgen.
fn start_header() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide");
    fs::create_dir_all(&folder).unwrap();
    let start = fs::read_to_string(package().join("guide/01-start.md")).unwrap();
    let source = folder.join("lib.rs");
    fs::write(&source, code(&start, "rust")[0].split("\n#\n").next().unwrap()).unwrap();
    let builder = cbindgen::Builder::new().with_language(cbindgen::Language::C).with_src(source);
    builder.generate().unwrap().write_to_file(folder.join("primes.h"));
    folder
}

#[test]
fn its_c_code_compiles() {
    let headers = [start_header(), package().join("include")];
    let mut compiled = 0;
    for chapter in fs::read_dir(package().join("guide")).unwrap() {
        let chapter = chapter.unwrap().path();
        let name = chapter.file_stem().unwrap().to_string_lossy();
        for (index, code) in code(&fs::read_to_string(&chapter).unwrap(), "c").iter().enumerate() {
            let source = headers[0].join(format!("{name}-{index}.c"));
            fs::write(&source, code).unwrap();
            let mut cc = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
            cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]);
            cc.arg("-I").arg(&headers[0]).arg("-I").arg(&headers[1]).arg(&source);
            assert!(cc.status().expect("a C compiler").success(), "{cc:?}");
            compiled += 1;
        }
    }
    assert!(compiled >= 4, "the guide has C code");
}
