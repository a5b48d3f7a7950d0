//! Just enough HTTP/1.1: an `async` client, and a price server with fibers in place of `async`
//! code.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_io::Async;
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use upcall::{JoinHandle, wait};

use crate::parts;

use crate::FIBERS;

/// The number of unfinished calls of [`get`].
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// The greatest number since the last [`most_open`].
static MOST_OPEN: AtomicUsize = AtomicUsize::new(0);

/// An unfinished call of [`get`].
struct Open;

impl Open {
    fn new() -> Self {
        MOST_OPEN.fetch_max(OPEN.fetch_add(1, Relaxed) + 1, Relaxed);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

/// The greatest number of calls of [`get`] at a time, since the last look.
pub fn most_open() -> usize {
    MOST_OPEN.swap(0, Relaxed)
}

/// Gets the page at `url`, with the host given by address and port.
///
/// # Errors
/// If the page cannot be had, or the server's answer is not a success.
pub async fn get(url: &str) -> io::Result<String> {
    let _open = Open::new();
    let named = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
    let (host, page) = named.ok_or_else(|| io::Error::other("not a URL"))?;
    let mut server =
        Async::<TcpStream>::connect(host.parse::<SocketAddr>().map_err(io::Error::other)?).await?;
    let request = format!("GET /{page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    server.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}

/// The server's delay for the price of a part.
pub fn delay(id: i64) -> Duration {
    Duration::from_millis(5 + id as u64 % 16)
}

/// Starts a server with the pages `/price/1`, `/price/2`, …, each the price of a part. It runs
/// until it is aborted.
pub fn serve_prices() -> (SocketAddr, JoinHandle<io::Result<()>>) {
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let address = listener.get_ref().local_addr().expect("it has an address");
    let server = FIBERS.spawn(move || {
        loop {
            let (client, _) = wait(listener.accept())?;
            drop(FIBERS.spawn(move || answer(client)));
        }
    });
    (address, server)
}

fn answer(mut client: Async<TcpStream>) -> io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(&mut client);
    wait(lines.read_line(&mut request))?;
    // Skips the rest of the request, up to an empty line.
    while wait(lines.read_line(&mut String::new()))? > "\r\n".len() {}
    let page = request.strip_prefix("GET /price/").and_then(|rest| rest.split_once(' '));
    let (status, body) = match page.and_then(|(id, _)| id.parse().ok()) {
        Some(id) => {
            upcall::sleep(delay(id));
            ("200 OK", parts::price(id).to_string())
        }
        None => ("404 Not Found", String::new()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    wait(client.write_all(answer.as_bytes()))
}
