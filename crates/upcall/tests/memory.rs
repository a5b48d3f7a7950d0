//! Resident memory. Each measurement runs in its own process.
#![cfg(unix)]

mod common;

use common::{child, part, stderr_of_success};
use upcall::with_stack;

fn touch(bytes: usize) {
    let page = std::hint::black_box([1u8; 4096]);
    if bytes > 0 {
        touch(bytes.saturating_sub(4096));
    }
    std::hint::black_box(page);
}

#[test]
fn large_idle_stacks_give_their_pages_back() {
    const NAME: &str = "large_idle_stacks_give_their_pages_back";
    fn resident_kib() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    }
    if part().is_none() {
        stderr_of_success(&child(NAME, "alone", &[]));
        return;
    }
    with_stack(256 << 20, || touch(80 << 20));
    assert!(resident_kib() < 60 << 10, "{} KiB", resident_kib());
}

/// Pages stay resident: a page given back would fault at its next use.
#[test]
fn idle_stacks_of_sizes_that_people_write_keep_their_pages() {
    const NAME: &str = "idle_stacks_of_sizes_that_people_write_keep_their_pages";
    const CALLS: libc::c_long = 100;
    fn faults() -> libc::c_long {
        // SAFETY: all-zero is a valid `rusage`, a struct of integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is valid for writing.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) }, 0);
        usage.ru_minflt
    }
    if part().is_none() {
        stderr_of_success(&child(NAME, "alone", &[]));
        return;
    }
    // This thread's own stack is too small for all of these sizes.
    let small = std::thread::Builder::new().stack_size(128 << 10);
    let calls = || {
        for bytes in [900 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20] {
            let call = || with_stack(bytes, || touch(64 << 10));
            (0..CALLS).for_each(|_| call());
            let before = faults();
            (0..CALLS).for_each(|_| call());
            let during = faults() - before;
            assert!(during < CALLS / 2, "{during} page faults in {CALLS} calls with {bytes} bytes");
        }
    };
    small.spawn(calls).unwrap().join().unwrap();
}
