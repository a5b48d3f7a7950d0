//! What is done in each scene, wherever it plays: a database is filled and asked, and its answers are checked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::check::equal;
use crate::probe::{Probe, Seen};
use crate::speed::Speed;
use crate::sqlite::Connection;
use crate::{functions, parts, sys};

/// What [`with_tax`](parts::with_tax) says about the price that [`ask_in_vain`] sets.
pub const EXPECTED_PANIC: &str = "the price -1 is negative";

/// What a job tells.
#[derive(Clone, Copy)]
pub struct Report {
    /// What the calls saw.
    pub seen: Seen,
    /// What such calls cost there.
    pub speed: Speed,
}

/// Asks both questions.
pub fn ask() -> Report {
    let (db, probe) = open();
    let right = parts::answers();
    equal("the cost of the machine", db.query(parts::COST, &[1]), Ok(right.costs[1]));
    equal("the sum of the prices", db.query(parts::PRICES, &[]), Ok(right.prices));
    equal("the number of calls", probe.seen().calls, 2 * parts::COUNT);
    report(&probe)
}

/// Asks for the cost while a part deep inside has a price that [`with_tax`](parts::with_tax) panics about.
///
/// Each level below turns the panic into an SQL error for SQLite, and raises it again in the query that encloses it. So it arrives
/// here as it began, and SQLite knows the message.
pub fn ask_in_vain() -> Report {
    let (db, probe) = open();
    equal("a wrong price", db.execute(c"UPDATE parts SET price = -1 WHERE id = 2000"), Ok(()));
    let asked = catch_unwind(AssertUnwindSafe(|| db.query::<i64>(parts::COST, &[1])));
    let payload = asked.map_err(|payload| payload.downcast::<String>().map(|message| *message).ok());
    equal("the panic", payload, Err(Some(EXPECTED_PANIC.to_owned())));
    equal("the SQL error", db.last_error(), EXPECTED_PANIC.to_owned());

    let right_price = c"UPDATE parts SET price = 1 + id * 7919 % 1000 WHERE id = 2000";
    equal("the right price", db.execute(right_price), Ok(()));
    equal("the cost after the panic", db.query(parts::COST, &[1]), Ok(parts::answers().costs[1]));
    report(&probe)
}

/// Asks for the cost of one part, with three levels of parts below it.
pub fn ask_little() {
    let (db, _) = open();
    equal("the cost of a part", db.query(parts::COST, &[300]), Ok(parts::answers().costs[300]));
}

/// Has a function called by nested SQL take the snapshot.
pub fn look() -> String {
    let (db, _) = open();
    db.query(c"SELECT eval('SELECT eval(''SELECT snapshot()'')')", &[]).unwrap()
}

/// A full table, the functions, and a host that interrupts long queries to let its other coroutines run.
fn open() -> (Connection, Rc<Probe>) {
    let (db, probe) = connect();
    equal("filling the table", db.execute(parts::FILL), Ok(()));
    db.on_progress(sys::give_way);
    (db, probe)
}

/// An empty database and the functions.
pub fn connect() -> (Connection, Rc<Probe>) {
    let (db, probe) = (Connection::open(), Rc::new(Probe::new()));
    functions::register(&db, &probe);
    (db, probe)
}

fn report(probe: &Probe) -> Report {
    let seen = probe.seen();
    equal("calls that ran where they should not", seen.astray, 0);
    Report { seen, speed: Speed::here() }
}
