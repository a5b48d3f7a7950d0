//! One descriptor with a counter in the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub struct OsEvent(OwnedFd);

impl OsEvent {
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn renew(&self) -> io::Result<()> {
        let new = Self::new()?;
        // SAFETY: both descriptors are ours, so nobody else's is closed.
        match unsafe { libc::dup3(new.0.as_raw_fd(), self.0.as_raw_fd(), libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    pub fn signal(&self) {
        let one = 1u64;
        // SAFETY: `one` has eight readable bytes. The call fails only if the counter is full, and
        // then the descriptor is readable.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    pub fn clear(&self) -> u32 {
        let mut count = 0u64;
        // SAFETY: `count` has eight writable bytes. The call fails only if the counter is 0.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        count.try_into().unwrap_or(u32::MAX)
    }

    pub fn event(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
