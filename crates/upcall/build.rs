//! Finds out whether the target has native thread-locals, from the compilers that tell.
//!
//! A stable compiler does not: `src/sys/mod.rs` names its targets without native thread-locals. A
//! target described in a JSON file needs a nightly compiler, and those tell.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(upcall_no_thread_local)");
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let tells = is_set("CARGO_CFG_TARGET_HAS_ATOMIC_LOAD_STORE");
    if tells && !is_set("CARGO_CFG_TARGET_THREAD_LOCAL") {
        println!("cargo::rustc-cfg=upcall_no_thread_local");
    }
}
