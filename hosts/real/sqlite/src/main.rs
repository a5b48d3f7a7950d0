//! SQLite through rusqlite: all of its callbacks are in Rust, are upcalls, and wait for a worker's
//! fiber.
//!
//! Usage: `sqlite-host CASE`, or `sqlite-host version`. The callbacks are in `callbacks.rs`.

mod callbacks;
#[path = "../../expected.rs"]
mod expected;
mod locks;
mod numbers;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use async_channel::{Receiver, Sender, bounded};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Result};
use upcall::{StackChoice, enter, entry, wait};

use callbacks::{Visits, Way, connection, exec, in_upcall};
use expected::EXPECTED;

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// The answers expected from [`questions`].
const ANSWERS: [&str; 6] = ["42", "6", "110", "1 3 5 7 9", "cba", "1234"];

/// Runs statements that call each callback of `db`. Returns their answers.
fn questions(db: &Connection, visits: &Visits) -> Result<Vec<String>> {
    let answer = |sql: &str| db.query_row(&format!("SELECT CAST(({sql}) AS TEXT)"), [], |row| row.get(0));
    db.execute_batch(
        "CREATE TABLE words(word); BEGIN; INSERT INTO words VALUES ('b'), ('c'), ('a'); COMMIT",
    )?;
    db.execute_batch("BEGIN; DELETE FROM words; ROLLBACK")?;
    let windows =
        "SELECT total(value) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS sum FROM numbers(5)";
    let sorted = "SELECT word FROM words ORDER BY word COLLATE BACKWARDS";
    let answers = vec![
        answer("SELECT doubled(21)")?,
        answer("SELECT nested(6)")?,
        answer("SELECT total(doubled(value)) FROM numbers(10)")?,
        answer(&format!("SELECT group_concat(sum, ' ') FROM ({windows})"))?,
        answer(&format!("SELECT group_concat(word, '') FROM ({sorted})"))?,
        exec(db, visits)?,
    ];
    db.execute_batch("DROP TABLE words")?;
    Ok(answers)
}

const PLACES: [&str; 20] = [
    "scalar",
    "nested",
    "init",
    "step",
    "finalize",
    "value",
    "inverse",
    "collation",
    "connect",
    "best_index",
    "open",
    "filter",
    "next",
    "column",
    "progress",
    "update",
    "commit",
    "rollback",
    "exec",
    "",
];

/// Asks a new connection all questions, and checks that every callback was called.
fn ask(way: Way) {
    let visits = Arc::new(Visits::default());
    let db = connection(&visits, way).unwrap();
    assert_eq!(way.call(|| questions(&db, &visits)).unwrap(), ANSWERS);
    for place in PLACES {
        assert_eq!(visits.count(place) == 0, place.is_empty(), "{place}");
    }
}

fn threads() {
    ask(Way::Downcall);
    enter(|| ask(Way::Downcall)).unwrap();
    entry().stack(StackChoice::Pooled).enter(|| ask(Way::Downcall)).unwrap();
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| enter(|| ask(Way::Downcall)).unwrap()))));
}

/// Asks in fibers of workers and of this thread.
fn fibers() {
    let mut fibers: Vec<_> = (0..10).map(|_| FIBERS.spawn(|| ask(Way::Downcall))).collect();
    fibers.extend((0..10).map(|_| FIBERS.spawn(|| ask(Way::OnFiber))));
    let runtime = FIBERS.local_runtime().unwrap();
    fibers.extend((0..10).map(|_| runtime.spawn_local(|| ask(Way::OnFiber))));
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

/// Runs two statements of one thread. Each gets its rows from the other, so neither can end first.
fn interleaved() {
    let runtime = FIBERS.local_runtime().unwrap();
    let statement = |from: i64, to_other: Sender<i64>, from_other: Receiver<i64>| {
        runtime.spawn_local(move || {
            let db = connection(&Arc::default(), Way::OnFiber)?;
            db.create_scalar_function("swap", 1, FunctionFlags::SQLITE_UTF8, move |context| {
                in_upcall(|| {
                    wait(to_other.send(context.get(0)?)).unwrap();
                    Ok(wait(from_other.recv()).unwrap())
                })
            })?;
            let sql = "SELECT total(swap(?1 + value)) FROM numbers(100)";
            Way::OnFiber.call(|| db.query_row(sql, [from], |row| row.get::<_, i64>(0)))
        })
    };
    let ((to_a, of_a), (to_b, of_b)) = (bounded(1), bounded(1));
    let (a, b) = (statement(0, to_b, of_a), statement(1000, to_a, of_b));
    assert_eq!(a.join().unwrap(), Ok(105_050));
    assert_eq!(b.join().unwrap(), Ok(5_050));
}

/// Panics in each callback in turn.
///
/// SQLite takes the panic for an error of the callback. The panic continues at the call of SQLite,
/// and the connection is as good as before.
fn panics() {
    let everywhere = |way: Way| {
        for place in PLACES {
            let visits = Arc::new(Visits::default());
            let db = connection(&visits, way).unwrap();
            visits.panic_at(Some(place));
            let answered = Cell::new(None);
            let ask = || way.call(|| answered.set(Some(questions(&db, &visits))));
            let raised = catch_unwind(AssertUnwindSafe(ask));
            visits.panic_at(None);
            let answered = answered.into_inner().expect("SQLite has returned");
            match raised {
                Ok(()) => assert!(place.is_empty() && answered.is_ok(), "{place}: {answered:?}"),
                Err(payload) => {
                    assert_eq!(*payload.downcast::<String>().unwrap(), format!("{EXPECTED}{place}"))
                }
            }
            // These callbacks cannot fail in SQLite, so the statement continues.
            let goes_on = ["", "collation", "update", "rollback"].contains(&place);
            assert_eq!(answered.is_ok(), goes_on, "{place}: {answered:?}");
            if !goes_on {
                assert!(db.is_autocommit() || db.execute_batch("ROLLBACK").is_ok());
                way.call(|| db.execute_batch("DROP TABLE IF EXISTS words")).unwrap();
            }
            assert_eq!(way.call(|| questions(&db, &visits)).unwrap(), ANSWERS);
        }
    };
    everywhere(Way::Downcall);
    entry().stack(StackChoice::Pooled).enter(|| everywhere(Way::Downcall)).unwrap();
    FIBERS.spawn(move || everywhere(Way::Downcall)).join().unwrap();
    FIBERS.spawn(move || everywhere(Way::OnFiber)).join().unwrap();
}

fn main() {
    expected::hide();
    let case = std::env::args().nth(1).unwrap_or_default();
    match &*case {
        "version" => println!("{}", rusqlite::version()),
        "threads" => threads(),
        "fibers" => fibers(),
        "interleaved" => interleaved(),
        "panics" => panics(),
        "busy_thread" => locks::of_another_thread(),
        "busy_fiber" => locks::of_another_fiber(),
        _ => panic!("there is no case {case}"),
    }
}
