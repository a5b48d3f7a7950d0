//! A waiting SQL function, called by many connections at a time: first each is a fiber, then each
//! is a thread.

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
use crate::{http, parts, sys};

use crate::FIBERS;

/// The number of threads that run fibers. For a time there may be a few more, in place of threads
/// asleep in the kernel.
pub const WORKERS: usize = 2;
/// The number of connections at a time.
pub const CONNECTIONS: i64 = 100;
/// The number of statements of each connection, run one after the other.
pub const STATEMENTS: i64 = 3;

/// The results of all statements, run in one way.
pub struct Run {
    /// The kind of the connections: fibers or threads.
    pub name: &'static str,
    /// The number of threads on which SQLite ran.
    pub threads: usize,
    /// The time from the first connection to the last answer.
    pub took: Duration,
    /// The observations of the last connection's calls.
    pub seen: Seen,
}

/// Runs all statements in both ways.
pub fn run() -> [Run; 2] {
    let (address, server) = http::serve_prices();
    // A fiber's stack has room for a query, beyond the 256 KiB promised to its upcalls. The query
    // needs 20 KiB in an unoptimised build.
    let fibers = timed("fibers", || {
        let fibers: Vec<_> = (0..CONNECTIONS).map(|n| FIBERS.spawn(move || ask(n, address))).collect();
        fibers.into_iter().map(|fiber| fiber.join().expect("a fiber does not panic")).collect()
    });
    let threads = timed("threads", || {
        let threads: Vec<_> = (0..CONNECTIONS).map(|n| thread::spawn(move || ask(n, address))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    });
    server.abort();
    equal("the server's end", server.join().is_err_and(|error| error.is_aborted()), true);
    equal("threads of the threads", threads.threads, CONNECTIONS as usize);
    at_least("fibers a thread", CONNECTIONS as usize / fibers.threads, sys::FIBERS_A_THREAD);
    [fibers, threads]
}

/// The server's delays for all statements, added up.
pub fn delays() -> Duration {
    (0..CONNECTIONS).flat_map(parts_of).map(http::delay).sum()
}

/// The parts of a connection's statements.
fn parts_of(connection: i64) -> impl Iterator<Item = i64> {
    (0..STATEMENTS).map(move |statement| connection + statement * CONNECTIONS)
}

fn sql(server: SocketAddr) -> CString {
    CString::new(format!("SELECT with_tax(fetch('http://{server}/price/' || ?1))")).expect("no zero in it")
}

/// Runs the statements of one connection.
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
    at_least("waits at a time", http::most_open(), CONNECTIONS as usize / 4);
    Run { name, threads: threads.len(), took, seen: seen[seen.len() - 1] }
}

/// Aborts a fiber in the middle of a statement. Returns SQLite's message about the statement.
///
/// The wait in `fetch` unwinds to the upcall, and its answer is an SQL error. So SQLite ends the
/// statement and returns to the query. The query unwinds further, and closes the connection on the
/// way.
pub fn cut_short() -> String {
    let memory = Connection::memory_used();
    // Clients can connect here, but they wait for an answer in vain.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    let server = silent.local_addr().expect("it has an address");
    let (tell, told) = mpsc::channel();
    let fiber = FIBERS.spawn(move || {
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
    // The fiber waits in `fetch` only, now or soon. The abort ends it there.
    fiber.abort();
    equal("the fiber's end", fiber.join().is_err_and(|error| error.is_aborted()), true);
    equal("SQLite's memory", Connection::memory_used(), memory);
    let error = told.recv().unwrap_or_default();
    equal("the SQL error", error.as_str(), "the fiber was dropped while it waited");
    error
}

/// Calls its function at the end of the scope, also when the scope unwinds.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
