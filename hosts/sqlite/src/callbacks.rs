//! A connection all of whose callbacks are in Rust, and wait.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex};

use rusqlite::functions::{Aggregate, Context, FunctionFlags, WindowAggregate};
use rusqlite::{Connection, Error, Result, ffi};
use upcall::{Entry, StackChoice, enter, entry, spawn, wait, yield_now};

use crate::numbers;

/// What the messages of panics begin with that are to be caught.
pub const EXPECTED: &str = "as expected: ";

/// How Rust code calls SQLite.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// On C's stack: waits in callbacks block the thread.
    Downcall,
    /// On the fiber's stack: they suspend the fiber.
    OnFiber,
}

impl Way {
    /// Runs `f`, which calls SQLite.
    pub fn call<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Self::Downcall => upcall::downcall(f),
            Self::OnFiber => upcall::downcall_on_fiber(f),
        }
    }
}

/// Where the callbacks have been, and where one is to panic.
#[derive(Default)]
pub struct Visits {
    counts: Mutex<BTreeMap<&'static str, usize>>,
    panics_at: Mutex<Option<&'static str>>,
}

impl Visits {
    /// Every callback begins so: it waits for a worker's fiber.
    pub fn at(&self, place: &'static str) {
        wait(spawn(yield_now)).unwrap();
        *self.counts.lock().unwrap().entry(place).or_default() += 1;
        let panics_at = *self.panics_at.lock().unwrap();
        assert!(panics_at != Some(place), "{EXPECTED}{place}");
    }

    /// Has the next visits of a place panic.
    pub fn panic_at(&self, place: Option<&'static str>) {
        *self.panics_at.lock().unwrap() = place;
    }

    /// How often a place was visited.
    pub fn count(&self, place: &'static str) -> usize {
        self.counts.lock().unwrap().get(place).copied().unwrap_or(0)
    }
}

/// Runs `f` as an upcall; a panic becomes an SQL error.
pub fn in_upcall<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    in_upcall_by(entry(), f)
}

fn in_upcall_by<R>(entry: Entry, f: impl FnOnce() -> Result<R>) -> Result<R> {
    entry.enter(f).unwrap_or_else(|panicked| Err(Error::UserFunctionError(panicked.into())))
}

/// An aggregate, also over windows.
struct Total(Arc<Visits>);

impl Aggregate<i64, i64> for Total {
    fn init(&self, _: &mut Context<'_>) -> Result<i64> {
        in_upcall(|| {
            self.0.at("init");
            Ok(0)
        })
    }

    fn step(&self, context: &mut Context<'_>, total: &mut i64) -> Result<()> {
        in_upcall(|| {
            self.0.at("step");
            *total += context.get::<i64>(0)?;
            Ok(())
        })
    }

    fn finalize(&self, _: &mut Context<'_>, total: Option<i64>) -> Result<i64> {
        in_upcall(|| {
            self.0.at("finalize");
            Ok(total.unwrap_or(0))
        })
    }
}

impl WindowAggregate<i64, i64> for Total {
    fn value(&self, total: Option<&mut i64>) -> Result<i64> {
        in_upcall(|| {
            self.0.at("value");
            Ok(total.copied().unwrap_or(0))
        })
    }

    fn inverse(&self, context: &mut Context<'_>, total: &mut i64) -> Result<()> {
        in_upcall(|| {
            self.0.at("inverse");
            *total -= context.get::<i64>(0)?;
            Ok(())
        })
    }
}

/// A connection to a database in memory.
pub fn connection(visits: &Arc<Visits>, way: Way) -> Result<Connection> {
    let db = Connection::open_in_memory()?;
    let flags = FunctionFlags::SQLITE_UTF8;
    let here = visits.clone();
    db.create_scalar_function("doubled", 1, flags, move |context| {
        // Where C is on a fiber's stack, a pooled stack would be another, on which waits block the thread.
        let choice = if matches!(way, Way::OnFiber) { StackChoice::Auto } else { StackChoice::Pooled };
        in_upcall_by(entry().stack(choice), || {
            here.at("scalar");
            Ok(2 * context.get::<i64>(0)?)
        })
    })?;
    let here = visits.clone();
    db.create_scalar_function("nested", 1, flags, move |context| {
        in_upcall(|| {
            here.at("nested");
            let n: i64 = context.get(0)?;
            // SAFETY: the connection stays on this thread.
            let db = unsafe { context.get_connection() }?;
            let sql = if n > 0 { "SELECT 1 + nested(?1 - 1)" } else { "SELECT doubled(?1)" };
            way.call(|| db.query_row(sql, [n], |row| row.get::<_, i64>(0)))
        })
    })?;
    db.create_window_function("total", 1, flags, Total(visits.clone()))?;
    let here = visits.clone();
    db.create_collation("BACKWARDS", move |a, b| {
        enter(|| {
            here.at("collation");
            b.cmp(a)
        })
        .unwrap_or_else(|_| a.cmp(b))
    })?;
    numbers::create(&db, visits)?;
    let here = visits.clone();
    db.progress_handler(50, Some(move || enter(|| here.at("progress")).is_err()))?;
    let here = visits.clone();
    db.update_hook(Some(move |_, _: &str, _: &str, _| drop(enter(|| here.at("update")))))?;
    let here = visits.clone();
    db.commit_hook(Some(move || enter(|| here.at("commit")).is_err()))?;
    let here = visits.clone();
    db.rollback_hook(Some(move || drop(enter(|| here.at("rollback")))))?;
    Ok(db)
}

/// The first columns of the rows that `sqlite3_exec` gives to its callback, which rusqlite has no name for.
pub fn exec(db: &Connection, visits: &Visits) -> Result<String> {
    struct Rows<'a> {
        visits: &'a Visits,
        texts: String,
    }
    unsafe extern "C" fn row(
        rows: *mut c_void,
        _: c_int,
        values: *mut *mut c_char,
        _: *mut *mut c_char,
    ) -> c_int {
        let seen = enter(|| {
            // SAFETY: the rows that are passed below, which nobody else uses meanwhile, and the texts of one row.
            let (rows, text) = unsafe { (&mut *rows.cast::<Rows>(), CStr::from_ptr(*values)) };
            rows.visits.at("exec");
            rows.texts += text.to_str().unwrap();
        });
        c_int::from(seen.is_err())
    }
    let mut rows = Rows { visits, texts: String::new() };
    let sql = c"SELECT value FROM numbers(4)";
    // SAFETY: the connection is open, and the callback gets rows, as it expects, that outlive the call.
    let code = unsafe {
        ffi::sqlite3_exec(db.handle(), sql.as_ptr(), Some(row), (&raw mut rows).cast(), ptr::null_mut())
    };
    match code {
        ffi::SQLITE_OK => Ok(rows.texts),
        _ => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}
