//! Runs programs in a process of `c/model.c`.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use super::host::started;
use super::programs::Program;

/// A failure: its message, the end of the process, and the number of programs that passed before.
#[derive(Debug)]
pub struct Failure {
    pub before: usize,
    pub says: String,
    pub status: ExitStatus,
}

/// Runs programs in one process, one after the other. Each may take at most `seconds`.
pub fn run(host: &Path, programs: &[Program], seconds: u32) -> Result<(), Failure> {
    let mut command = started(host);
    command.arg(seconds.to_string());
    command
        .env("RUST_BACKTRACE", "0")
        .env("UPCALL_MIN_STACK", "131072")
        .env("UPCALL_TOKIO_RUNTIME", "none")
        .env_remove("LD_LIBRARY_PATH");
    if cfg!(debug_assertions) {
        command.env("HOST_UNOPTIMISED", "1");
    }
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("the host program runs");
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let mut printed = [String::new(), String::new()];
    let [done, says] = &mut printed;
    std::thread::scope(|scope| {
        scope.spawn(|| stdout.read_to_string(done));
        scope.spawn(|| stderr.read_to_string(says));
        for (number, program) in programs.iter().enumerate() {
            // After a failure, the process reads no more.
            if stdin.write_all(program.text(number).as_bytes()).is_err() {
                break;
            }
        }
        drop(stdin);
    });
    let status = child.wait().unwrap();
    if status.success() {
        assert_eq!(done.lines().count(), programs.len(), "a host that exits has run all programs");
        return Ok(());
    }
    Err(Failure { before: done.lines().count(), says: format!("{status}\n{says}"), status })
}
