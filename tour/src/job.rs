//! The work of each scene: fills and queries a database, and checks the answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::check::equal;
use crate::probe::{Probe, Seen};
use crate::speed::Speed;
use crate::sqlite::Connection;
use crate::{functions, parts, sys};

/// The panic of [`with_tax`](parts::with_tax) about the price set by [`ask_in_vain`].
pub const EXPECTED_PANIC: &str = "the price -1 is negative";

/// The results of a job.
#[derive(Clone, Copy)]
pub struct Report {
    /// The observations of the calls.
    pub seen: Seen,
    /// The cost of such calls on this stack.
    pub speed: Speed,
}

/// Asks both questions, and checks the answers.
pub fn ask() -> Report {
    let (db, probe) = open();
    let right = parts::answers();
    equal("the cost of the machine", db.query(parts::COST, &[1]), Ok(right.costs[1]));
    equal("the sum of the prices", db.query(parts::PRICES, &[]), Ok(right.prices));
    equal("the number of calls", probe.seen().calls, 2 * parts::COUNT);
    report(&probe)
}

/// Asks for the cost while a part deep inside has a wrong price, so [`with_tax`](parts::with_tax)
/// panics.
///
/// At each level, the panic becomes an SQL error for SQLite, and the enclosing query raises it
/// again. So it arrives here with its first payload, and SQLite knows the message.
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

/// Takes a snapshot in a function called by nested SQL.
pub fn look() -> String {
    let (db, _) = open();
    db.query(c"SELECT eval('SELECT eval(''SELECT snapshot()'')')", &[]).unwrap()
}

/// Opens a filled database with the functions. The host interrupts long queries, to let its other
/// coroutines run.
fn open() -> (Connection, Rc<Probe>) {
    let (db, probe) = connect();
    equal("filling the table", db.execute(parts::FILL), Ok(()));
    db.on_progress(sys::give_way);
    (db, probe)
}

/// Opens an empty database with the functions.
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
