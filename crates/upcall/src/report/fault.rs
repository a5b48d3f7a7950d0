//! The report of a fault other than a stack overflow.

use std::ffi::c_int;
use std::fmt;

use super::chain::{Calls, ThisThread};
use crate::thread::Record;

/// A fault of the calling thread.
pub(super) struct Fault<'a> {
    pub signal: c_int,
    /// The address of the invalid access, for SIGSEGV and SIGBUS.
    pub address: Option<usize>,
    /// The address of the faulting instruction; `None` if it is not known.
    pub code: Option<usize>,
    /// SP at this instruction; `None` if it is not known.
    pub sp: Option<usize>,
    /// The calling thread's record, if it is attached.
    pub record: Option<&'a Record>,
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.signal {
            libc::SIGSEGV => "SIGSEGV (invalid memory access)",
            libc::SIGBUS => "SIGBUS (memory that is not there)",
            libc::SIGILL => "SIGILL (an illegal instruction)",
            libc::SIGFPE => "SIGFPE (an arithmetic error)",
            libc::SIGABRT => "SIGABRT (abort)",
            _ => "a fault",
        };
        write!(out, "upcall: {what} on {ThisThread}")?;
        if let Some(code) = self.code {
            write!(out, ", at instruction {code:#x}")?;
        }
        match (self.signal, self.address) {
            (libc::SIGSEGV | libc::SIGBUS, Some(address)) => writeln!(out, ", which touched {address:#x}")?,
            _ => writeln!(out)?,
        }
        Calls { record: self.record, from: self.sp }.fmt(out)
    }
}
