//! A connection with all of its callbacks in Rust. Every callback waits.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex};

use rusqlite::functions::{Aggregate, Context, FunctionFlags, WindowAggregate};
use rusqlite::{Connection, Error, Result, ffi};
use upcall::{Entry, StackChoice, enter, entry, wait, yield_now};

use crate::FIBERS;
use crate::expected::EXPECTED;
use crate::numbers;

/// A way for Rust code to call SQLite.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Calls on C's stack: waits in callbacks block the thread.
    Downcall,
    /// Calls on the fiber's stack: waits in callbacks suspend the fiber.
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

/// The visits of the callbacks, and the callback that is to panic.
#[derive(Default)]
pub struct Visits {
    counts: Mutex<BTreeMap<&'static str, usize>>,
    panics_at: Mutex<Option<&'static str>>,
}

impl Visits {
    /// Begins a callback: waits for a worker's fiber, and counts the visit.
    pub fn at(&self, place: &'static str) {
        wait(FIBERS.spawn(yield_now)).unwrap();
        *self.counts.lock().unwrap().entry(place).or_default() += 1;
        let panics_at = *self.panics_at.lock().unwrap();
        assert!(panics_at != Some(place), "{EXPECTED}{place}");
    }

    /// Makes the next visits of `place` panic; with `None`, no visit.
    pub fn panic_at(&self, place: Option<&'static str>) {
        *self.panics_at.lock().unwrap() = place;
    }

    /// The number of visits of a place.
    pub fn count(&self, place: &'static str) -> usize {
        self.counts.lock().unwrap().get(place).copied().unwrap_or(0)
    }
}

/// Runs `f` in an upcall. A panic becomes an SQL error.
pub fn in_upcall<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    in_upcall_by(entry(), f)
}

fn in_upcall_by<R>(entry: Entry, f: impl FnOnce() -> Result<R>) -> Result<R> {
    entry.enter(f).unwrap_or_else(|panicked| Err(Error::UserFunctionError(panicked.into())))
}

/// An aggregate function, also for windows.
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

/// Opens a connection to a database in memory, with all callbacks set.
pub fn connection(visits: &Arc<Visits>, way: Way) -> Result<Connection> {
    let db = Connection::open_in_memory()?;
    let flags = FunctionFlags::SQLITE_UTF8;
    let here = visits.clone();
    db.create_scalar_function("doubled", 1, flags, move |context| {
        // If C is on a fiber's stack, an upcall on a pooled stack would leave it, and a wait there
        // would block the thread.
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

/// Runs `sqlite3_exec`, not covered by rusqlite. Returns the first columns of all rows.
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
            // SAFETY: the pointer is to the `Rows` passed below, unused elsewhere during the call.
            // The values are the texts of one row.
            let (rows, text) = unsafe { (&mut *rows.cast::<Rows>(), CStr::from_ptr(*values)) };
            rows.visits.at("exec");
            rows.texts += text.to_str().unwrap();
        });
        c_int::from(seen.is_err())
    }
    let mut rows = Rows { visits, texts: String::new() };
    let sql = c"SELECT value FROM numbers(4)";
    // SAFETY: the connection is open, and the callback gets a pointer to `rows`, which outlives the
    // call.
    let code = unsafe {
        ffi::sqlite3_exec(db.handle(), sql.as_ptr(), Some(row), (&raw mut rows).cast(), ptr::null_mut())
    };
    match code {
        ffi::SQLITE_OK => Ok(rows.texts),
        _ => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}
