//! Runs the tour. The program checks itself.

use std::process::Command;

#[test]
fn all_checks_pass() {
    let output = Command::new(env!("CARGO_BIN_EXE_tour")).output().expect("the tour starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("all ") && last.contains(" checks passed in "), "{out}");
}
