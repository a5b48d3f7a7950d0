//! Fork handlers of other libraries register stacks, and wait for threads that do. Some handlers
//! are older than ours, some younger.
#![cfg(unix)]

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

static CALLED: AtomicUsize = AtomicUsize::new(0);

/// Registers a stack of a page, looks it up, and unregisters it.
fn register() {
    let mut memory = vec![0_u8; 4096];
    let inside = memory.as_ptr() as usize + 100;
    // SAFETY: the memory outlives the registration, and no code runs on it.
    let registered = unsafe { stackbounds::register(memory.as_mut_ptr(), memory.len()) };
    assert!(registered.is_ok() && stackbounds::at(inside).is_exact());
}

extern "C" fn handler() {
    CALLED.fetch_add(1, Relaxed);
    register();
    std::thread::spawn(register).join().unwrap();
}

/// Forks. Each of the two processes has then called four handlers: two before, and two after.
fn fork() {
    CALLED.store(0, Relaxed);
    // SAFETY: the child calls only the functions under test and `_exit`. Its allocator handles
    // forks.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: `alarm` has no memory requirements. It ends a child that hangs.
        unsafe { libc::alarm(10) };
        register();
        let called = CALLED.load(Relaxed);
        // SAFETY: `_exit` ends the child without the parent's exit handlers.
        unsafe { libc::_exit(if called == 4 { 0 } else { 1 }) };
    }
    let mut status = -1;
    // SAFETY: `status` is valid for writing.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child's status; 14 if it hung");
    assert_eq!(CALLED.load(Relaxed), 4);
}

#[test]
fn handlers_register() {
    let add = || {
        // SAFETY: the handlers are functions of this program, so they exist as long as the process.
        assert_eq!(unsafe { libc::pthread_atfork(Some(handler), Some(handler), Some(handler)) }, 0);
    };
    add();
    register();
    add();
    for _ in 0..20 {
        fork();
    }
}
