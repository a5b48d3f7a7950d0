//! A transfer with waits in all of its callbacks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_channel::{Receiver, Sender};
use curl::easy::{Easy2, Handler, InfoType, ReadError, WriteError};
use upcall::{enter, wait, yield_now};

use crate::FIBERS;
use crate::expected::EXPECTED;

/// A transfer of a body to the server and back.
#[derive(Default)]
pub struct Transfer {
    /// The bytes to send.
    pub body: Vec<u8>,
    sent: usize,
    /// The bytes received so far.
    pub received: Vec<u8>,
    /// The number of calls of each callback.
    pub visits: BTreeMap<&'static str, usize>,
    /// The callback that is to panic.
    pub panics_at: Option<&'static str>,
    /// The other transfer: each received piece waits for it.
    pub partner: Option<(Sender<()>, Receiver<()>)>,
}

impl Transfer {
    /// Begins a callback: waits for a worker's fiber, and counts the visit.
    fn at(&mut self, place: &'static str) {
        wait(FIBERS.spawn(yield_now)).unwrap();
        *self.visits.entry(place).or_default() += 1;
        assert!(self.panics_at != Some(place), "{EXPECTED}{place}");
    }
}

impl Handler for Transfer {
    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        let written = enter(|| {
            self.at("write");
            if let Some((to_other, from_other)) = &self.partner {
                // The other's transfer may have ended.
                let _ = (wait(to_other.send(())), wait(from_other.recv()));
            }
            self.received.extend(data);
            data.len()
        });
        // A smaller number than all bytes is an error to libcurl.
        Ok(written.unwrap_or(0))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let read = enter(|| {
            self.at("read");
            let piece = &self.body[self.sent..];
            let length = piece.len().min(into.len()).min(10_000);
            into[..length].copy_from_slice(&piece[..length]);
            self.sent += length;
            length
        });
        read.map_err(|_| ReadError::Abort)
    }

    fn header(&mut self, _: &[u8]) -> bool {
        enter(|| self.at("header")).is_ok()
    }

    fn progress(&mut self, _: f64, _: f64, _: f64, _: f64) -> bool {
        enter(|| self.at("progress")).is_ok()
    }

    fn debug(&mut self, _: InfoType, _: &[u8]) {
        drop(enter(|| self.at("debug")));
    }
}

/// Makes a transfer of `length` bytes to the server and back.
pub fn transfer(server: SocketAddr, length: usize) -> Easy2<Transfer> {
    let body: Vec<u8> = (0..length).map(|n| ((n * n) >> 3) as u8).collect();
    let mut easy = Easy2::new(Transfer { body, ..Transfer::default() });
    easy.url(&format!("http://{server}/")).unwrap();
    easy.put(true).unwrap();
    easy.in_filesize(length as u64).unwrap();
    easy.progress(true).unwrap();
    easy.verbose(true).unwrap();
    easy
}

/// Returns whether the received bytes are those sent.
pub fn is_complete(easy: &Easy2<Transfer>) -> bool {
    easy.get_ref().received == easy.get_ref().body
}

/// Resets the transfer, so it can run again.
pub fn rewind(easy: &mut Easy2<Transfer>) {
    let transfer = easy.get_mut();
    transfer.sent = 0;
    transfer.received.clear();
    transfer.panics_at = None;
}
