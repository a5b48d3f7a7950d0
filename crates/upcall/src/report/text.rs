//! Text in a fixed buffer, for code that must not allocate.

use std::fmt;

use crate::quiet::write_to_stderr;

/// What fits; the rest is cut off.
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

    /// Writes it to stderr, if there is one.
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
