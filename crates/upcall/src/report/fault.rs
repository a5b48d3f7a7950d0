//! The report of a fault other than a stack overflow.

use std::fmt;

use super::chain::{Calls, ThisThread};
use crate::sys::faults::Raised;
use crate::thread::Record;

/// A fault of the calling thread.
pub(super) struct Fault<'a> {
    pub raised: &'a Raised,
    /// The calling thread's record, if it is attached.
    pub record: Option<&'a Record>,
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { raised, record } = *self;
        write!(out, "upcall: {} on {ThisThread}", raised.what)?;
        if let Some(code) = raised.code {
            write!(out, ", at instruction {code:#x}")?;
        }
        if let Some(address) = raised.address {
            write!(out, ", which touched {address:#x}")?;
        }
        writeln!(out)?;
        Calls { record, from: raised.sp }.fmt(out)
    }
}
