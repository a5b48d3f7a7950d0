//! For loom: a counter in place of a descriptor, under a lock, as in the kernel.

use std::io;

use loom::sync::Mutex;

use crate::sys::EventRef;

pub struct OsEvent(Mutex<u32>);

impl OsEvent {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new(0)))
    }

    pub fn renew(&self) -> io::Result<()> {
        unreachable!("loom's models do not fork")
    }

    pub fn signal(&self) {
        *self.0.lock().unwrap() += 1;
    }

    pub fn clear(&self) -> u32 {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub fn is_readable(&self) -> bool {
        *self.0.lock().unwrap() != 0
    }

    pub fn event(&self) -> EventRef<'_> {
        unreachable!("loom's models ask is_readable")
    }
}
