//! Copies of a process made without fork handlers: by `_Fork`, or by the system call.
#![cfg(all(target_os = "linux", target_env = "gnu", feature = "runtime"))]

mod common;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{FIBERS, child, part};

/// Copies this process by the system call below fork. Returns 0 in the copy.
fn clone_untold() -> c_int {
    // SAFETY: this is fork without its handlers. The behaviour of the copy is the subject of the
    // tests.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as c_int }
}

/// Runs `f` in such a copy, for 20 seconds at most.
///
/// Returns the copy's exit code, or the negative number of the signal that ended it.
fn in_copy(f: impl FnOnce()) -> c_int {
    let process = clone_untold();
    assert!(process >= 0);
    if process == 0 {
        // SAFETY: the alarm's default action ends a copy that hangs. No handler is installed for
        // it.
        unsafe { libc::alarm(20) };
        let done = catch_unwind(AssertUnwindSafe(f)).is_ok();
        // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
        unsafe { libc::_exit(if done { 0 } else { 101 }) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    assert_eq!(unsafe { libc::waitpid(process, &mut status, 0) }, process);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Runs `test` in a child process, and returns the child's stderr. In the child, returns `None`.
fn said(test: &str) -> Option<String> {
    if part().is_some() {
        return None;
    }
    let output = child(test, "copies", &[("RUST_BACKTRACE", "0")]);
    Some(common::stderr_of_success(&output))
}

const SAYS: &str = "made by _Fork, clone or a system call that calls no fork handlers";

fn waits_are_errors(wait: impl FnOnce()) {
    assert_eq!(in_copy(wait), 101, "the copy's status: 101 for a panic, 0 if it went on, -14 if it hung");
}

#[test]
fn waits_of_every_kind_say_so() {
    if let Some(said) = said("waits_of_every_kind_say_so") {
        assert_eq!(said.matches(SAYS).count(), 5, "{said}");
        return;
    }
    let (sender, receiver) = async_channel::bounded::<()>(1);
    FIBERS.spawn(|| ()).join().unwrap();
    upcall::blocking(|| ());
    upcall::sleep(Duration::from_millis(1));
    waits_are_errors(|| upcall::sleep(Duration::from_millis(1)));
    waits_are_errors(|| _ = upcall::blocking(|| 42));
    waits_are_errors(|| _ = FIBERS.spawn(|| 42).join());
    let lost = FIBERS.spawn(move || upcall::wait(receiver.recv()).is_ok());
    let mut lost = Some(lost);
    waits_are_errors(|| _ = lost.take().unwrap().join());
    waits_are_errors(|| _ = upcall::shutdown(Duration::MAX));
    // The parent still works.
    assert!(FIBERS.spawn(|| true).join().unwrap());
    drop(sender);
}

/// A worker without a peer to wait for would keep the copy alive for ever.
#[test]
fn a_worker_in_a_copy_says_so() {
    if let Some(said) = said("a_worker_in_a_copy_says_so") {
        assert_eq!(said.matches(SAYS).count(), 1, "{said}");
        return;
    }
    // Attached, so that the copy lacks a thread with a record, however early it is made.
    upcall::attach().unwrap();
    let copied = FIBERS.spawn(|| {
        let process = clone_untold();
        if process == 0 {
            // SAFETY: the alarm's default action ends a copy that hangs. No handler is installed
            // for it.
            unsafe { libc::alarm(20) };
        }
        process
    });
    let process = copied.join().unwrap();
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    assert_eq!(unsafe { libc::waitpid(process, &mut status, 0) }, process);
    assert_eq!(libc::WTERMSIG(status), libc::SIGABRT);
}

/// In a copy, calls that wait for no other thread still work.
///
/// If the parent had this thread only, the copy can also wait for threads of its own.
#[test]
fn alone_it_works() {
    if said("alone_it_works").is_some() {
        return;
    }
    upcall::enter(|| ()).unwrap();
    let all = || {
        assert_eq!(upcall::enter(|| 42).unwrap(), 42);
        upcall::sleep(Duration::from_millis(1));
        assert_eq!(upcall::blocking(|| 42), 42);
        assert_eq!(FIBERS.spawn(|| 42).join().unwrap(), 42);
        upcall::shutdown(Duration::from_secs(5)).unwrap();
    };
    assert_eq!(in_copy(all), 0);
    // SAFETY: the declaration matches glibc's `_Fork`.
    unsafe extern "C" {
        fn _Fork() -> c_int;
    }
    // SAFETY: the behaviour of the copy is the subject of this test, and it ends by `_exit`.
    let process = unsafe { _Fork() };
    if process == 0 {
        let done = catch_unwind(all).is_ok();
        // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
        unsafe { libc::_exit(c_int::from(!done)) };
    }
    let mut status = -1;
    // SAFETY: `status` is valid for writing.
    assert_eq!(unsafe { libc::waitpid(process, &mut status, 0) }, process);
    assert_eq!(status, 0);
    all();
}

/// A process that shares this one's memory does not count as a copy.
#[test]
fn shared_memory_is_no_copy() {
    if said("shared_memory_is_no_copy").is_some() {
        return;
    }
    static DONE: AtomicBool = AtomicBool::new(false);
    extern "C" fn shares(_: *mut libc::c_void) -> c_int {
        DONE.store(true, Relaxed);
        // SAFETY: `_exit` ends this process alone, and runs no exit handlers of the parent.
        unsafe { libc::_exit(0) }
    }
    FIBERS.spawn(|| ()).join().unwrap();
    let mut stack = vec![0_u8; 256 << 10];
    let top = stack.as_mut_ptr_range().end;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `top` is the end of a live stack. It stays alive until the process has ended.
    let process = unsafe { libc::clone(shares, top.cast(), flags, std::ptr::null_mut()) };
    assert!(process > 0);
    let mut status = -1;
    // SAFETY: `status` is valid for writing.
    assert_eq!(unsafe { libc::waitpid(process, &mut status, 0) }, process);
    assert!(DONE.load(Relaxed));
    upcall::sleep(Duration::from_millis(1));
    assert_eq!(FIBERS.spawn(|| 42).join().unwrap(), 42);
}
