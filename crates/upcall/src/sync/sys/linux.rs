//! A futex.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

pub fn while_is(number: &AtomicU32, value: u32, deadline: Option<Instant>) -> bool {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // Further off than the system's clock can tell is no deadline.
    let left = left.and_then(|left| {
        let tv_sec = left.as_secs().try_into().ok()?;
        Some(libc::timespec { tv_sec, tv_nsec: left.subsec_nanos().into() })
    });
    let timeout = left.as_ref().map_or(ptr::null(), ptr::from_ref);
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the number and the timeout, which live during the call.
    let result = unsafe { libc::syscall(libc::SYS_futex, number.as_ptr(), wait, value, timeout) };
    // SAFETY: errno is the calling thread's own.
    result == 0 || unsafe { *libc::__errno_location() } != libc::ETIMEDOUT
}

pub fn wake(number: &AtomicU32) {
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the address only names the sleepers.
    unsafe { libc::syscall(libc::SYS_futex, number.as_ptr(), wake, 1) };
}
