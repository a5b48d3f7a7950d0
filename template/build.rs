//! Writes two headers to `include/`: this library's, from `src/lib.rs`, and upcall's, under this
//! library's name.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    let package = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let include = Path::new(&package).join("include");
    fs::create_dir_all(&include).expect("include/ can be made");

    // Unchanged headers are not written again.
    let header = cbindgen::generate(&package).expect("cbindgen reads src/lib.rs");
    header.write_to_file(include.join("{{crate_name}}.h"));

    let functions = include.join("{{crate_name}}_upcall.h");
    let text = String::from("#define UPCALL_PREFIX {{crate_name}}_\n") + upcall::C_HEADER;
    if fs::read_to_string(&functions).ok().as_ref() != Some(&text) {
        fs::write(functions, text).expect("include/ can be written to");
    }
}
