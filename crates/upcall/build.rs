//! Tells the build scripts of libraries that are built on upcall where `upcall.h` is: in `DEP_UPCALL_INCLUDE`.

fn main() {
    println!("cargo::rerun-if-changed=include");
    println!("cargo::metadata=include={}", concat!(env!("CARGO_MANIFEST_DIR"), "/include"));
}
