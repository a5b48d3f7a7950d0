//! The little of SQLite's C interface that the tour needs.
//!
//! Calls that may call our functions back are downcalls: SQLite runs on the stack that its host gave it, and when a function of
//! ours has panicked, the panic goes on here, once SQLite has returned. On a fiber, a query runs on the fiber's stack, so that
//! its functions may wait.
//!
//! A query that waits holds its connection's mutex, which is the thread's, not the fiber's. That is harmless: the fiber goes on on
//! the same thread, and other fibers have connections of their own. Of SQLite's global mutexes it holds none while it calls a function.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;

use libsqlite3_sys::*;

/// A SQL function as SQLite calls it: the call, the number of its arguments, the arguments.
pub type Function = unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);

/// A database in memory; `Drop` closes it.
pub struct Connection(*mut sqlite3);

/// A Rust type that SQL values are read as and made of.
pub trait Value {
    /// Reads the first column of a row.
    ///
    /// # Safety
    /// `row` is at a row.
    unsafe fn column(row: *mut sqlite3_stmt) -> Self;

    /// Answers a call of a function.
    ///
    /// # Safety
    /// `call` is a call that has not returned.
    unsafe fn answer(self, call: *mut sqlite3_context);
}

impl Connection {
    /// Opens a new, empty database.
    pub fn open() -> Self {
        let mut db = ptr::null_mut();
        // SAFETY: the name is a C string, and `db` takes the result.
        let code = unsafe { sqlite3_open(c":memory:".as_ptr(), &mut db) };
        assert_eq!(code, SQLITE_OK, "there is no memory for a database");
        Self(db)
    }

    /// The connection that a function was called on, without closing it.
    ///
    /// # Safety
    /// `call` is a call that returns after the last use of the connection.
    pub unsafe fn of(call: *mut sqlite3_context) -> ManuallyDrop<Self> {
        // SAFETY: the caller vouches for the call, and a connection outlives its calls.
        ManuallyDrop::new(Self(unsafe { sqlite3_context_db_handle(call) }))
    }

    /// Makes a function known to SQL, with `data` for its calls to find.
    ///
    /// # Safety
    /// `function` may be called with `count` arguments, and takes the call's data for a `D`.
    pub unsafe fn create_function<D>(&self, name: &CStr, count: c_int, function: Function, data: Rc<D>) {
        unsafe extern "C" fn release<D>(data: *mut c_void) {
            // SAFETY: SQLite gives back, once, the pointer that it was given below.
            // There is nobody to tell if dropping it panics.
            let _ = upcall::enter(|| drop(unsafe { Rc::from_raw(data.cast::<D>()) }));
        }
        let (name, data) = (name.as_ptr(), Rc::into_raw(data).cast_mut().cast());
        let (function, release) = (Some(function), Some(release::<D> as _));
        // SAFETY: the caller vouches for the function; `data` is alive until it is released.
        let code = upcall::downcall(|| unsafe {
            sqlite3_create_function_v2(self.0, name, count, SQLITE_UTF8, data, function, None, None, release)
        });
        assert_eq!(code, SQLITE_OK, "{}", self.last_error());
    }

    /// Has `handler`, a C function of the host, called every few steps of a statement.
    pub fn on_progress(&self, handler: extern "C" fn(*mut c_void) -> c_int) {
        const STEPS: c_int = 20;
        // SAFETY: the handler takes a null pointer as well as any.
        unsafe { sqlite3_progress_handler(self.0, STEPS, Some(handler), ptr::null_mut()) };
    }

    /// Runs statements that have no rows.
    pub fn execute(&self, sql: &CStr) -> Result<(), String> {
        // SAFETY: the connection is open, and `sql` is a C string.
        let code = upcall::downcall(|| unsafe {
            sqlite3_exec(self.0, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut())
        });
        if code == SQLITE_OK { Ok(()) } else { Err(self.last_error()) }
    }

    /// The first column of the first row that `sql` gives for `arguments`.
    ///
    /// # Panics
    /// When a SQL function written in Rust has panicked, with the payload of its panic.
    pub fn query<T: Value>(&self, sql: &CStr, arguments: &[i64]) -> Result<T, String> {
        // SAFETY: the connection is open, `sql` is a C string, and the statement lives until it is finalized.
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

    /// The bytes that SQLite has allocated, for all connections.
    pub fn memory_used() -> i64 {
        // SAFETY: it may be asked at any time.
        unsafe { sqlite3_memory_used() }
    }

    /// What SQLite says about the last call that failed.
    pub fn last_error(&self) -> String {
        // SAFETY: the connection is open; its message is a C string until its next call.
        unsafe { CStr::from_ptr(sqlite3_errmsg(self.0)).to_string_lossy().into_owned() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: nobody uses the connection any more, and its statements are finalized.
        upcall::downcall(|| unsafe { sqlite3_close(self.0) });
    }
}

impl Value for i64 {
    unsafe fn column(row: *mut sqlite3_stmt) -> Self {
        // SAFETY: the caller vouches for the row. Of NULL, SQLite makes 0.
        unsafe { sqlite3_column_int64(row, 0) }
    }

    unsafe fn answer(self, call: *mut sqlite3_context) {
        // SAFETY: the caller vouches for the call.
        unsafe { sqlite3_result_int64(call, self) }
    }
}

impl Value for String {
    unsafe fn column(row: *mut sqlite3_stmt) -> Self {
        // SAFETY: the caller vouches for the row, and text ends with a zero; a null pointer is no text.
        unsafe {
            let text = sqlite3_column_text(row, 0).cast::<c_char>();
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    unsafe fn answer(self, call: *mut sqlite3_context) {
        // SAFETY: the caller vouches for the call; SQLite copies the text.
        unsafe { sqlite3_result_text(call, self.as_ptr().cast(), self.len() as c_int, SQLITE_TRANSIENT()) }
    }
}
