//! A pipe with at most a few bytes in it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub struct OsEvent {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl OsEvent {
    pub fn new() -> io::Result<Self> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two numbers.
        if unsafe { libc::pipe(fds.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors are new, so nobody else owns them.
        let [reader, writer] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        for fd in [&reader, &writer] {
            // SAFETY: the calls take no pointers. These two commands cannot fail on a pipe.
            unsafe {
                libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
                libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK);
            }
        }
        Ok(Self { reader, writer })
    }

    pub fn renew(&self) -> io::Result<()> {
        let new = Self::new()?;
        for (new, old) in [(&new.reader, &self.reader), (&new.writer, &self.writer)] {
            // SAFETY: both descriptors are ours, so nobody else's is closed.
            if unsafe { libc::dup2(new.as_raw_fd(), old.as_raw_fd()) } == -1 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the call takes no pointers, and cannot fail on a pipe.
            unsafe { libc::fcntl(old.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        Ok(())
    }

    pub fn signal(&self) {
        // SAFETY: the array has one readable byte. The call fails only if the pipe is full, and
        // then it is readable.
        unsafe { libc::write(self.writer.as_raw_fd(), [1u8].as_ptr().cast(), 1) };
    }

    pub fn clear(&self) -> u32 {
        let mut bytes = [0u8; 64];
        // SAFETY: `bytes` is writable for its whole length. Further bytes stay in the pipe and
        // leave it readable. This is harmless.
        let read = unsafe { libc::read(self.reader.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
        read.try_into().unwrap_or(0)
    }

    pub fn event(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
