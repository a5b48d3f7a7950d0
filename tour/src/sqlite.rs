//! The parts of SQLite's C interface used by the tour.
//!
//! Every call that may call our functions back is a downcall. SQLite runs on its host's stack, and
//! a panic in a function of ours continues here after SQLite has returned. On a fiber, a query runs
//! on the fiber's stack, so its functions may wait.
//!
//! A waiting query holds its connection's mutex, owned by the thread and not by the fiber. This is
//! harmless: the fiber resumes on the same thread, and other fibers have connections of their own.
//! During calls of functions, SQLite holds none of its global mutexes.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;

use libsqlite3_sys::*;

/// An SQL function as called by SQLite, with the call, the number of arguments, and the arguments.
pub type Function = unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);

/// A database in memory; `Drop` closes it.
pub struct Connection(*mut sqlite3);

/// A Rust type for SQL values, read from rows and given as answers.
pub trait Value {
    /// Reads the first column of a row.
    ///
    /// # Safety
    /// `row` is a statement at a row.
    unsafe fn column(row: *mut sqlite3_stmt) -> Self;

    /// Answers a call of a function.
    ///
    /// # Safety
    /// `call` is open: it has not returned.
    unsafe fn answer(self, call: *mut sqlite3_context);
}

impl Connection {
    /// Opens a new, empty database.
    pub fn open() -> Self {
        let mut db = ptr::null_mut();
        // SAFETY: the name is a C string, and `db` is valid for writing the result.
        let code = unsafe { sqlite3_open(c":memory:".as_ptr(), &mut db) };
        assert_eq!(code, SQLITE_OK, "there is no memory for a database");
        Self(db)
    }

    /// The connection of a function's call. Dropping it does not close it.
    ///
    /// # Safety
    /// `call` is open, and returns after the last use of the connection.
    pub unsafe fn of(call: *mut sqlite3_context) -> ManuallyDrop<Self> {
        // SAFETY: the caller guarantees that `call` is open, and a connection outlives its calls.
        ManuallyDrop::new(Self(unsafe { sqlite3_context_db_handle(call) }))
    }

    /// Registers a function for SQL, with `data` for its calls.
    ///
    /// # Safety
    /// `function` may be called with `count` arguments, and reads its data as a `D`.
    pub unsafe fn create_function<D>(&self, name: &CStr, count: c_int, function: Function, data: Rc<D>) {
        unsafe extern "C" fn release<D>(data: *mut c_void) {
            // SAFETY: SQLite passes the pointer given to it below, exactly once.
            // If the drop panics, there is nobody to tell.
            let _ = upcall::enter(|| drop(unsafe { Rc::from_raw(data.cast::<D>()) }));
        }
        let (name, data) = (name.as_ptr(), Rc::into_raw(data).cast_mut().cast());
        let (function, release) = (Some(function), Some(release::<D> as _));
        // SAFETY: the caller guarantees the function's arguments and data, and `data` lives until
        // `release`.
        let code = upcall::downcall(|| unsafe {
            sqlite3_create_function_v2(self.0, name, count, SQLITE_UTF8, data, function, None, None, release)
        });
        assert_eq!(code, SQLITE_OK, "{}", self.last_error());
    }

    /// Calls `handler`, a C function of the host, every few steps of a statement.
    pub fn on_progress(&self, handler: extern "C" fn(*mut c_void) -> c_int) {
        const STEPS: c_int = 20;
        // SAFETY: the handler ignores its pointer, so it may be null.
        unsafe { sqlite3_progress_handler(self.0, STEPS, Some(handler), ptr::null_mut()) };
    }

    /// Runs statements without rows.
    pub fn execute(&self, sql: &CStr) -> Result<(), String> {
        // SAFETY: the connection is open, and `sql` is a C string.
        let code = upcall::downcall(|| unsafe {
            sqlite3_exec(self.0, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut())
        });
        if code == SQLITE_OK { Ok(()) } else { Err(self.last_error()) }
    }

    /// The first column of the first row of `sql` with `arguments`.
    ///
    /// # Panics
    /// If an SQL function written in Rust has panicked. The payload is the function's.
    pub fn query<T: Value>(&self, sql: &CStr, arguments: &[i64]) -> Result<T, String> {
        // SAFETY: the connection is open, `sql` is a C string, and the statement lives until it is
        // finalized.
        upcall::downcall_on_fiber(|| unsafe {
            let mut statement = ptr::null_mut();
            if sqlite3_prepare_v2(self.0, sql.as_ptr(), -1, &mut statement, ptr::null_mut()) != SQLITE_OK {
                return Err(self.last_error());
            }
            for (place, argument) in (1..).zip(arguments) {
                sqlite3_bind_int64(statement, place, *argument);
            }
            let answer = match sqlite3_step(statement) {
                SQLITE_ROW => Ok(T::column(statement)),
                SQLITE_DONE => Err("there is no such row".to_owned()),
                _ => Err(self.last_error()),
            };
            sqlite3_finalize(statement);
            answer
        })
    }

    /// The bytes allocated by SQLite for all connections.
    pub fn memory_used() -> i64 {
        // SAFETY: the function has no preconditions.
        unsafe { sqlite3_memory_used() }
    }

    /// SQLite's message about the last failed call.
    pub fn last_error(&self) -> String {
        // SAFETY: the connection is open, and its message is a C string until its next call.
        unsafe { CStr::from_ptr(sqlite3_errmsg(self.0)).to_string_lossy().into_owned() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the connection has no other user, and its statements are finalized.
        upcall::downcall(|| unsafe { sqlite3_close(self.0) });
    }
}

impl Value for i64 {
    unsafe fn column(row: *mut sqlite3_stmt) -> Self {
        // SAFETY: the caller guarantees a statement at a row. SQLite reads NULL as 0.
        unsafe { sqlite3_column_int64(row, 0) }
    }

    unsafe fn answer(self, call: *mut sqlite3_context) {
        // SAFETY: the caller guarantees that `call` is open.
        unsafe { sqlite3_result_int64(call, self) }
    }
}

impl Value for String {
    unsafe fn column(row: *mut sqlite3_stmt) -> Self {
        // SAFETY: the caller guarantees a statement at a row. Text ends with a zero byte; a null
        // pointer means no text.
        unsafe {
            let text = sqlite3_column_text(row, 0).cast::<c_char>();
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    unsafe fn answer(self, call: *mut sqlite3_context) {
        // SAFETY: the caller guarantees that `call` is open, and SQLite copies the text.
        unsafe { sqlite3_result_text(call, self.as_ptr().cast(), self.len() as c_int, SQLITE_TRANSIENT()) }
    }
}
