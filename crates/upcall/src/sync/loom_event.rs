//! For loom: a flag in place of a descriptor, under a lock, as in the kernel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use loom::sync::Mutex;

pub struct EventFd(Mutex<bool>);

impl EventFd {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(false)))
    }

    pub fn renew(&self) -> io::Result<()> {
        unreachable!("loom's models do not fork")
    }

    pub fn signal(&self) {
        *self.0.lock().unwrap() = true;
    }

    pub fn clear(&self) {
        *self.0.lock().unwrap() = false;
    }

    pub fn is_readable(&self) -> bool {
        *self.0.lock().unwrap()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("loom's models ask is_readable")
    }
}
