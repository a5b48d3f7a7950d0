//! Java threads, with each JDK in JAVA_HOME or in the usual place of Linux distributions.

#![allow(dead_code, reason = "the other test files use the rest of the module")]

#[allow(unused_macros)]
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::Outcome;

fn jdks() -> Vec<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let distribution = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|e| e.path());
    let jdks = home.into_iter().chain(distribution).filter(|jdk| jdk.join("include/linux/jni_md.h").exists());
    let mut jdks: Vec<_> = jdks.filter_map(|jdk| jdk.canonicalize().ok()).collect();
    jdks.sort();
    jdks.dedup();
    jdks
}

fn build(jdk: &Path, program: &Path) {
    let server = jdk.join("lib/server");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O2", "-g", "-pthread", "-o"]).arg(program);
    cc.arg("-I").arg(program::headers());
    cc.arg("-I").arg(jdk.join("include")).arg("-I").arg(jdk.join("include/linux"));
    cc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("c/java.c"));
    cc.arg(program::libraries().join("libguest.a"));
    cc.arg("-L").arg(&server).arg("-ljvm").arg(format!("-Wl,-rpath,{}", server.display()));
    cc.args(["-lgcc_s", "-lutil", "-lrt", "-lm", "-ldl"]);
    assert!(cc.status().unwrap().success(), "{cc:?}");
}

#[test]
fn upcalls_near_the_end_of_java_stacks_leave_their_guard_zones_alone() {
    let jdks = jdks();
    if jdks.is_empty() {
        program::skipped("java", "a JDK with jni.h");
    }
    for (number, jdk) in jdks.iter().enumerate() {
        let program = program::folder("c-hosts").join(format!("java-{number}"));
        build(jdk, &program);
        for case in ["hosts_threads", "main_thread"] {
            let what = format!("{} {case}", jdk.display());
            program::run(Command::new(&program).arg(case), &what, Outcome::Success);
        }
    }
}
