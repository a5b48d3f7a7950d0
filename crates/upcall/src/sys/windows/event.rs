//! An event object, with the number of signals beside it.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::System::Threading::{CreateEventW, ResetEvent, SetEvent};

pub struct OsEvent {
    /// Signalled while `signals` is not 0. A wait does not reset it.
    event: OwnedHandle,
    signals: Mutex<u32>,
}

impl OsEvent {
    pub fn new() -> io::Result<Self> {
        let (manual_reset, signalled) = (1, 0);
        // SAFETY: null pointers stand for the default security, without inheritance, and no name.
        let event = unsafe { CreateEventW(ptr::null(), manual_reset, signalled, ptr::null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is new, so nobody else owns it.
        Ok(Self { event: unsafe { OwnedHandle::from_raw_handle(event) }, signals: Mutex::new(0) })
    }

    /// Does nothing: there are no forks.
    pub fn renew(&self) -> io::Result<()> {
        Ok(())
    }

    pub fn signal(&self) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        *signals = signals.saturating_add(1);
        // SAFETY: the handle is an event of ours.
        unsafe { SetEvent(self.event.as_raw_handle()) };
    }

    pub fn clear(&self) -> u32 {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the handle is an event of ours.
        unsafe { ResetEvent(self.event.as_raw_handle()) };
        std::mem::take(&mut signals)
    }

    pub fn event(&self) -> BorrowedHandle<'_> {
        self.event.as_handle()
    }
}
