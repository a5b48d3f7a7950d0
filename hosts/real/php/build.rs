//! Compiles `embedded.c`, PHP's side of the embedding program, against the headers of the installed
//! PHP.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/embedded.c");
    println!("cargo::rerun-if-changed=src/php_host.h");
    let answer = Command::new("php-config8.2").arg("--includes").output().expect("php8.2-dev is installed");
    let includes = String::from_utf8(answer.stdout).expect("php-config answers in UTF-8");
    let mut cc = cc::Build::new();
    // PHP's headers have unused parameters, and compare signed with unsigned numbers.
    for include in includes.split_whitespace() {
        cc.flag("-isystem").flag(include.trim_start_matches("-I"));
    }
    cc.std("gnu11").warnings(true).extra_warnings(true).warnings_into_errors(true);
    cc.file("src/embedded.c").compile("embedded");
    println!("cargo::rustc-link-arg-bins=-lphp8.2");
}
