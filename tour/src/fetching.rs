//! An SQL function that waits, called by many connections at a time: each a fiber, against each a thread.

use std::collections::HashSet;
use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::check::{at_least, equal};
use crate::job::connect;
use crate::probe::Seen;
use crate::sqlite::Connection;
use crate::{http, parts};

/// The threads that run fibers. For a time there may be a few more, in the place of some that sleep in the kernel.
pub const WORKERS: usize = 2;
/// Connections at a time.
pub const CONNECTIONS: i64 = 100;
/// The statements that each runs, one after the other.
pub const STATEMENTS: i64 = 3;

/// All statements, run in one way.
pub struct Run {
    /// What each connection was.
    pub name: &'static str,
    /// How many threads SQLite ran on.
    pub threads: usize,
    /// From the first connection to the last answer.
    pub took: Duration,
    /// What the calls of the last connection saw.
    pub seen: Seen,
}

/// Runs all statements in both ways.
pub fn run() -> [Run; 2] {
    let (address, server) = http::serve_prices();
    // What a query needs of a stack, 20 KiB in an unoptimised build, a fiber has beyond the 128 KiB that its upcalls are promised.
    let fibers = timed("fibers", || {
        let fibers: Vec<_> = (0..CONNECTIONS).map(|n| upcall::spawn(move || ask(n, address))).collect();
        fibers.into_iter().map(|fiber| fiber.join().expect("a fiber does not panic")).collect()
    });
    let threads = timed("threads", || {
        let threads: Vec<_> = (0..CONNECTIONS).map(|n| thread::spawn(move || ask(n, address))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    });
    server.abort();
    equal("the server's end", server.join().is_err_and(|error| error.is_aborted()), true);
    equal("threads of the threads", threads.threads, CONNECTIONS as usize);
    at_least("fibers a thread", CONNECTIONS as usize / fibers.threads, 4);
    [fibers, threads]
}

/// What the server takes for all statements, one after the other.
pub fn delays() -> Duration {
    (0..CONNECTIONS).flat_map(parts_of).map(http::delay).sum()
}

/// The parts whose prices a connection asks for.
fn parts_of(connection: i64) -> impl Iterator<Item = i64> {
    (0..STATEMENTS).map(move |statement| connection + statement * CONNECTIONS)
}

fn sql(server: SocketAddr) -> CString {
    CString::new(format!("SELECT with_tax(fetch('http://{server}/price/' || ?1))")).expect("no zero in it")
}

/// The life of one connection.
fn ask(connection: i64, server: SocketAddr) -> (ThreadId, Seen) {
    let (db, probe) = connect();
    let (sql, thread) = (sql(server), thread::current().id());
    for id in parts_of(connection) {
        equal("a fetched price with tax", db.query(&sql, &[id]), Ok(parts::with_tax(parts::price(id))));
        equal("the thread after a wait", thread::current().id(), thread);
    }
    let seen = probe.seen();
    equal("the number of calls", seen.calls, 2 * STATEMENTS as usize);
    equal("calls that ran where they should not", seen.astray, 0);
    (thread, seen)
}

fn timed(name: &'static str, run: impl FnOnce() -> Vec<(ThreadId, Seen)>) -> Run {
    let began = Instant::now();
    let (threads, seen): (HashSet<_>, Vec<_>) = run().into_iter().unzip();
    let took = began.elapsed();
    at_least("waits at a time", (delays().as_micros() / took.as_micros()) as usize, 3);
    Run { name, threads: threads.len(), took, seen: seen[seen.len() - 1] }
}

/// Aborts a fiber in the middle of a statement. Returns what SQLite says about the statement.
///
/// The wait in `fetch` unwinds to the upcall, whose answer is an SQL error. With that SQLite ends the statement and returns to the query, which unwinds
/// further, and on the way closes the connection.
pub fn cut_short() -> String {
    let memory = Connection::memory_used();
    // Clients can connect, and wait for an answer.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let server = silent.local_addr().expect("it has an address");
    let (tell, told) = mpsc::channel();
    let fiber = upcall::spawn(move || {
        let (db, probe) = connect();
        let _when_closed = OnDrop(|| equal("owners of the probe", Rc::strong_count(&probe), 1));
        let db = db;
        let _when_unwound = OnDrop(|| {
            let _ = tell.send(db.last_error());
            equal("a query while the fiber is unwound", db.query(c"SELECT with_tax(100)", &[]), Ok(119));
        });
        let _ = tell.send("it has begun".to_owned());
        db.query::<i64>(&sql(server), &[1])
    });
    equal("the fiber", told.recv().as_deref(), Ok("it has begun"));
    // If it does not wait yet, it will, in `fetch` and nowhere else, and is ended there.
    fiber.abort();
    equal("the fiber's end", fiber.join().is_err_and(|error| error.is_aborted()), true);
    equal("SQLite's memory", Connection::memory_used(), memory);
    let error = told.recv().unwrap_or_default();
    equal("the SQL error", error.as_str(), "the fiber was dropped while it waited");
    error
}

/// Does something at the end of its scope, also when that is unwound.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
