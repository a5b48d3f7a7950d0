//! Text in a fixed buffer, for signal handlers: it never allocates.

use std::fmt;

use crate::messages::write_to_stderr;

/// A text of at most 4096 bytes; the rest is cut off.
pub(super) struct Text {
    bytes: [u8; 4096],
    len: usize,
}

impl Text {
    pub const fn new() -> Self {
        Self { bytes: [0; 4096], len: 0 }
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Writes the text to stderr, if the process has one.
    pub fn write_to_stderr(&self) {
        write_to_stderr(&self.bytes[..self.len]);
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let fits = part.len().min(room.len());
        room[..fits].copy_from_slice(&part.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}
