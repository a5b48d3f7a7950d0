//! A child of a fork can register stacks, even if other threads were registering some at the fork.
#![cfg(unix)]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Registers a stack of a page, looks it up, and unregisters it.
fn registers() -> bool {
    let mut memory = vec![0_u8; 4096];
    let inside = memory.as_ptr() as usize + 100;
    // SAFETY: the memory outlives the registration, and no code runs on it.
    let registered = unsafe { stackbounds::register(memory.as_mut_ptr(), memory.len()) };
    registered.is_ok() && stackbounds::at(inside).is_exact()
}

#[test]
fn a_child_registers() {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    // A fork that began before the process's first registration calls no handlers for it.
    assert!(registers());
    let threads = [(); 2].map(|()| {
        std::thread::spawn(|| {
            while !ENOUGH.load(Relaxed) {
                assert!(registers());
            }
        })
    });
    for _ in 0..300 {
        // SAFETY: the child calls only the functions under test and `_exit`. Its allocator is
        // glibc's, which handles forks.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: `alarm` ends a child that hangs. `_exit` ends it without the parent's exit
            // handlers.
            unsafe {
                libc::alarm(10);
                libc::_exit(i32::from(!registers()));
            }
        }
        let mut status = -1;
        // SAFETY: `status` is valid for writing.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "the child's status; 14 if it hung");
    }
    ENOUGH.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
