//! The virtual table `numbers(last)`: the numbers from 1 on, with a wait before each.

use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::sync::Arc;

use rusqlite::vtab::{Context, Filters, IndexInfo, Module, VTab, VTabConnection, VTabCursor};
use rusqlite::{Connection, Result, ffi};

use crate::callbacks::{Visits, in_upcall};

/// Registers the table with a connection.
pub fn create(db: &Connection, visits: &Arc<Visits>) -> Result<()> {
    const MODULE: Module<Numbers> = Module::eponymous_only_module();
    db.create_module("numbers", &MODULE, Some(visits.clone()))
}

#[repr(C)]
struct Numbers {
    /// SQLite's part. Must be first.
    base: ffi::sqlite3_vtab,
    visits: Arc<Visits>,
}

#[repr(C)]
struct Cursor<'a> {
    /// SQLite's part. Must be first.
    base: ffi::sqlite3_vtab_cursor,
    visits: Arc<Visits>,
    at: i64,
    last: i64,
    of: PhantomData<&'a Numbers>,
}

// SAFETY: the struct is `repr(C)` and begins with SQLite's part, as `VTab` requires.
unsafe impl<'a> VTab<'a> for Numbers {
    type Aux = Arc<Visits>;
    type Cursor = Cursor<'a>;

    fn connect(
        _: &mut VTabConnection,
        visits: Option<&Arc<Visits>>,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        in_upcall(|| {
            let visits = visits.expect("`create` gives it").clone();
            visits.at("connect");
            Ok((
                Cow::Borrowed(c"CREATE TABLE x(value, last HIDDEN)"),
                Self { base: Default::default(), visits },
            ))
        })
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        in_upcall(|| {
            self.visits.at("best_index");
            let last =
                info.constraints().position(|constraint| constraint.column() == 1 && constraint.is_usable());
            let Some(last) = last else { return Ok(false) };
            info.constraint_usage(last).set_argv_index(1);
            info.constraint_usage(last).set_omit(true);
            Ok(true)
        })
    }

    fn open(&'a mut self) -> Result<Cursor<'a>> {
        in_upcall(|| {
            self.visits.at("open");
            Ok(Cursor {
                base: Default::default(),
                visits: self.visits.clone(),
                at: 0,
                last: 0,
                of: PhantomData,
            })
        })
    }
}

// SAFETY: the struct is `repr(C)` and begins with SQLite's part, as `VTabCursor` requires.
unsafe impl VTabCursor for Cursor<'_> {
    fn filter(&mut self, _: c_int, _: Option<&str>, arguments: &Filters<'_>) -> Result<()> {
        in_upcall(|| {
            self.visits.at("filter");
            (self.at, self.last) = (1, arguments.get(0)?);
            Ok(())
        })
    }

    fn next(&mut self) -> Result<()> {
        in_upcall(|| {
            self.visits.at("next");
            self.at += 1;
            Ok(())
        })
    }

    fn eof(&self) -> bool {
        self.at > self.last
    }

    fn column(&self, context: &mut Context, column: c_int) -> Result<()> {
        in_upcall(|| {
            self.visits.at("column");
            context.set_result(if column == 0 { &self.at } else { &self.last })
        })
    }

    fn rowid(&self) -> Result<i64> {
        Ok(self.at)
    }
}
