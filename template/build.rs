//! Writes `include/`: this library's header, from `src/lib.rs`, and upcall's.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    let package = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let include = Path::new(&package).join("include");
    fs::create_dir_all(&include).expect("include/ can be made");

    // A header that has not changed is not written.
    let header = cbindgen::generate(&package).expect("cbindgen reads src/lib.rs");
    header.write_to_file(include.join("{{crate_name}}.h"));

    let upcalls = env::var("DEP_UPCALL_INCLUDE").expect("upcall tells where its header is");
    let upcalls = fs::read(Path::new(&upcalls).join("upcall.h")).expect("upcall.h is there");
    let copy = include.join("upcall.h");
    if fs::read(&copy).ok().as_ref() != Some(&upcalls) {
        fs::write(copy, upcalls).expect("include/ can be written to");
    }
}
