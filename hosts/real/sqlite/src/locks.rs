//! A busy handler that waits for the end of the locking transaction. A wake-up ends the wait;
//! nothing polls.

use std::ffi::{c_int, c_void};
use std::fs;
use std::path::PathBuf;
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use rusqlite::{Connection, Result, ffi};
use upcall::{enter, wait};

use crate::callbacks::Way;

use crate::FIBERS;

/// A database in its own folder.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("upcall-sqlite-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn open(&self) -> Connection {
        Connection::open(self.0.join("shared.db")).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Holds the lock in a transaction until another connection has found the database locked.
///
/// Then ends the transaction and signals the end.
fn holds(
    db: &Connection,
    way: Way,
    holding: &Sender<()>,
    found_locked: &Receiver<()>,
    ended: &Sender<()>,
) -> Result<()> {
    way.call(|| db.execute_batch("BEGIN IMMEDIATE; INSERT INTO log VALUES ('first')"))?;
    wait(holding.send(())).unwrap();
    wait(found_locked.recv()).unwrap();
    way.call(|| db.execute_batch("COMMIT"))?;
    wait(ended.send(())).unwrap();
    Ok(())
}

/// The ends of the channels of a connection in need of a lock.
struct Asks {
    found_locked: Sender<()>,
    ended: Receiver<()>,
}

/// The busy handler. rusqlite's own has no place for data.
unsafe extern "C" fn is_locked(asks: *mut c_void, times: c_int) -> c_int {
    let waited = enter(|| {
        assert_eq!(times, 0, "called again, though the transaction had ended");
        // SAFETY: `waits` passes a pointer to its `Asks`, which outlives the statement.
        let asks = unsafe { &*asks.cast::<Asks>() };
        wait(asks.found_locked.send(())).unwrap();
        wait(asks.ended.recv()).unwrap();
    });
    c_int::from(waited.is_ok())
}

/// Inserts a row into a locked database.
fn waits(db: Connection, way: Way, mut asks: Asks) -> Result<usize> {
    // SAFETY: the connection is open. Statements call the handler. None runs after this function,
    // and `asks` does not move before.
    unsafe { ffi::sqlite3_busy_handler(db.handle(), Some(is_locked), (&raw mut asks).cast()) };
    way.call(|| db.execute("INSERT INTO log VALUES ('second')", []))
}

fn check(folder: &Folder) {
    let log = "SELECT group_concat(who, ' ') FROM (SELECT who FROM log ORDER BY rowid)";
    let log: String = folder.open().query_row(log, [], |row| row.get(0)).unwrap();
    assert_eq!(log, "first second ".repeat(ROUNDS).trim());
}

const ROUNDS: usize = 20;

/// Waits for a lock of another thread, on the main thread or in a worker's fiber.
pub fn of_another_thread() {
    let folder = Folder::new("thread");
    folder.open().execute_batch("CREATE TABLE log(who)").unwrap();
    for round in 0..ROUNDS {
        let [(holding, held), (found_locked, found), (end, ended)] = [(); 3].map(|()| bounded(1));
        let asks = Asks { found_locked, ended };
        let db = folder.open();
        let other = thread::spawn(move || holds(&db, Way::Downcall, &holding, &found, &end));
        wait(held.recv()).unwrap();
        let db = folder.open();
        let waiting = move || waits(db, Way::Downcall, asks);
        let inserted =
            if round % 2 == 0 { enter(waiting).unwrap() } else { FIBERS.spawn(waiting).join().unwrap() };
        assert_eq!(inserted, Ok(1));
        other.join().unwrap().unwrap();
    }
    check(&folder);
}

/// Waits for a lock of another fiber of the same thread.
pub fn of_another_fiber() {
    let folder = Folder::new("fiber");
    folder.open().execute_batch("CREATE TABLE log(who)").unwrap();
    let runtime = FIBERS.local_runtime().unwrap();
    for _ in 0..ROUNDS {
        let [(holding, held), (found_locked, found), (end, ended)] = [(); 3].map(|()| bounded(1));
        let asks = Asks { found_locked, ended };
        let (holder, waiter) = (folder.open(), folder.open());
        let holds = runtime.spawn_local(move || holds(&holder, Way::OnFiber, &holding, &found, &end));
        let waits = runtime.spawn_local(move || {
            wait(held.recv()).unwrap();
            waits(waiter, Way::OnFiber, asks)
        });
        assert_eq!(waits.join().unwrap(), Ok(1));
        holds.join().unwrap().unwrap();
    }
    check(&folder);
}
