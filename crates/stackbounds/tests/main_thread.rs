//! The main thread. On Unix, with a stack limit and without.
//!
//! This test has its own `main`, since libtest runs tests on other threads.

#[allow(dead_code, reason = "each test uses a part")]
mod whole;

#[cfg(not(unix))]
fn main() {
    whole::assert_exact_and_usable_to_the_end();
    println!("main thread ... ok");
}

#[cfg(unix)]
fn main() {
    limits::main();
}

#[cfg(unix)]
mod limits {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use stackbounds::{Accuracy, current, stack_pointer, thread};

    use crate::whole::QUERIED;

    /// Uses at least `bytes` of stack below the caller; returns SP and the bounds there.
    #[inline(never)]
    fn seen_from(bytes: usize) -> (usize, stackbounds::StackBounds) {
        let page = std::hint::black_box([0u8; 4096]);
        if bytes > 4096 {
            let seen = seen_from(bytes - 4096);
            std::hint::black_box(page);
            return seen;
        }
        (stack_pointer(), current())
    }

    fn limited() {
        let stack = current();
        assert_eq!(stack.accuracy() == Accuracy::Exact, QUERIED);
        let (deep, seen) = seen_from(1 << 20);
        assert!(seen.contains(deep) && seen.accuracy() == stack.accuracy());
        if QUERIED {
            assert_eq!((stack, Some(stack)), (seen, thread()));
            assert!(stack.size() > 7 << 20 && stack.size() <= 8 << 20, "{} bytes", stack.size());
        }
    }

    fn unlimited() {
        let stack = current();
        if !QUERIED {
            return;
        }
        assert_eq!(stack.accuracy(), Accuracy::Exact);
        let room = stack.room_below(stack_pointer()).unwrap();
        assert!(room.abs_diff(64 << 20) < 64 << 10, "{stack:x?}");
        // Without a limit, the kernel places mappings from the bottom up, so they may come near.
        // None of them may lie inside.
        for _ in 0..1000 {
            let (rw, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping, not at a fixed address, touches nothing that exists.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), 1 << 20, rw, flags, -1, 0) } as usize;
            assert!(!stack.contains(at));
        }
        // Deeper than the bounds of the first answer: queried again, and still exact.
        let (deep, seen) = seen_from(100 << 20);
        assert!(seen.contains(deep) && seen.accuracy() == Accuracy::Exact, "{deep:x} {seen:x?}");
        assert_eq!(seen.high(), stack.high());
        // A query for an address in reach of the stack, but in a new mapping, changes nothing.
        let (rw, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let lower = if usize::BITS == 64 { 4 << 30 } else { 512 << 20 };
        let hint = ((seen.low() - lower) & !4095) as *mut libc::c_void;
        // SAFETY: a new mapping, not at a fixed address, touches nothing that exists.
        let at = unsafe { libc::mmap(hint, 1 << 20, rw, flags, -1, 0) };
        assert_eq!(at, hint);
        assert_eq!(stackbounds::at(at as usize + 1000).accuracy(), Accuracy::Estimated);
        assert_eq!((current(), thread()), (seen, Some(seen)));
    }

    pub fn main() {
        match std::env::args().nth(1).as_deref() {
            Some("limited") => return limited(),
            Some("unlimited") => return unlimited(),
            _ => {}
        }
        for (case, limit) in [("limited", 8 << 20), ("unlimited", libc::RLIM_INFINITY)] {
            let mut child = Command::new("env");
            // The emulator, in a test for another architecture.
            child.args(std::env::var("TEST_RUNNER").unwrap_or_default().split_whitespace());
            child.arg(std::env::current_exe().unwrap()).arg(case);
            // SAFETY: `getrlimit` and `setrlimit` are async-signal-safe, as required between fork
            // and exec.
            unsafe {
                child.pre_exec(move || {
                    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                    libc::getrlimit(libc::RLIMIT_STACK, &mut now);
                    now.rlim_cur = limit;
                    match libc::setrlimit(libc::RLIMIT_STACK, &now) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
            match child.status() {
                Ok(status) => assert!(status.success(), "main thread, stack {case}: {status}"),
                Err(refused) => {
                    println!("main thread, stack {case} ... SKIPPED: the limit cannot be set: {refused}");
                    continue;
                }
            }
            println!("main thread, stack {case} ... ok");
        }
    }
}
