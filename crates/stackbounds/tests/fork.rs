//! Children of forks while other threads register stacks: they can register, too.
#![cfg(unix)]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Registers a stack of a page, looks it up, and forgets it.
fn registers() -> bool {
    let mut memory = vec![0_u8; 4096];
    let inside = memory.as_ptr() as usize + 100;
    // SAFETY: the memory is there for as long as the registration; nobody runs on it.
    let registered = unsafe { stackbounds::register(memory.as_mut_ptr(), memory.len()) };
    registered.is_ok() && stackbounds::at(inside).is_exact()
}

#[test]
fn a_child_registers() {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let threads = [(); 2].map(|()| {
        std::thread::spawn(|| {
            while !ENOUGH.load(Relaxed) {
                assert!(registers());
            }
        })
    });
    for _ in 0..300 {
        // SAFETY: the child calls what the test is about, and `_exit`. Its allocator is glibc's, which sees to forks.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: ends a child that hangs; and the child, without handlers of the parent's.
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
