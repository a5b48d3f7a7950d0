//! Writes headers to `include/`: this library's, from `src/lib.rs` and `src/words.hpp`, and
//! upcall's, under this library's name.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    let package = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let include = Path::new(&package).join("include");
    fs::create_dir_all(&include).expect("include/ can be made");

    let header = cbindgen::generate(&package).expect("cbindgen reads src/lib.rs");
    header.write_to_file(include.join("{{crate_name}}.h"));

    let prefix = "#define UPCALL_PREFIX {{crate_name}}_\n";
    let c = format!("{prefix}{}", upcall::C_HEADER);
    write(&include.join("{{crate_name}}_upcall.h"), c);
    let namespace = "#define UPCALL_NAMESPACE {{crate_name}}\n";
    let cpp = upcall::CPP_HEADER.replace("\"upcall.h\"", "\"{{crate_name}}_upcall.h\"");
    let cpp = format!("#pragma once\n{prefix}{namespace}{cpp}");
    write(&include.join("{{crate_name}}_upcall.hpp"), cpp);

    let own = fs::read_to_string(Path::new(&package).join("src/words.hpp")).expect("src/words.hpp");
    write(&include.join("{{crate_name}}.hpp"), own);
}

/// Writes a file, unless it has this text.
fn write(path: &Path, text: String) {
    if fs::read_to_string(path).ok().as_ref() != Some(&text) {
        fs::write(path, text).expect("include/ can be written to");
    }
}
