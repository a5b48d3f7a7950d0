//! SQL functions written in Rust: a SQLite extension with upcall.

use std::ffi::{CStr, c_char, c_int};
use std::rc::Rc;

use libsqlite3_sys::{
    sqlite3_context, sqlite3_result_error, sqlite3_user_data, sqlite3_value, sqlite3_value_int64,
    sqlite3_value_text,
};

use crate::http;
use crate::parts;
use crate::probe::Probe;
use crate::sqlite::{Connection, Function, Value};

/// Registers all functions of this file on `db`; `probe` watches their calls.
pub fn register(db: &Connection, probe: &Rc<Probe>) {
    let functions: [(&CStr, c_int, Function); 5] = [
        (c"with_tax", 1, with_tax),
        (c"cost", 2, cost),
        (c"eval", 1, eval),
        (c"fetch", 1, fetch),
        (c"snapshot", 0, snapshot),
    ];
    for (name, arguments, function) in functions {
        // SAFETY: each function below reads as many arguments as this table gives it, and reads its
        // data as a `Probe`.
        unsafe { db.create_function(name, arguments, function, probe.clone()) }
    }
}

/// The SQL function `with_tax(price)`: C → Rust.
unsafe extern "C" fn with_tax(call: *mut sqlite3_context, _: c_int, arguments: *mut *mut sqlite3_value) {
    // SAFETY: SQLite makes this call, and passes the one argument of the registration.
    unsafe {
        let price = sqlite3_value_int64(*arguments);
        answer(call, |_| parts::with_tax(price));
    }
}

/// The SQL function `cost(id, price)`: the cost of a part with everything in it.
///
/// Its calls are C → Rust → C → Rust …, as deep as the parts are nested.
unsafe extern "C" fn cost(call: *mut sqlite3_context, _: c_int, arguments: *mut *mut sqlite3_value) {
    // SAFETY: SQLite makes this call, and passes the two arguments of the registration.
    unsafe {
        let (id, price) = (sqlite3_value_int64(*arguments), sqlite3_value_int64(*arguments.add(1)));
        answer(call, |db| {
            let inside: i64 = db.query(parts::COST_INSIDE, &[id]).unwrap();
            parts::with_tax(price) + inside
        });
    }
}

/// The SQL function `eval(sql)`: the result of a query on the same connection.
unsafe extern "C" fn eval(call: *mut sqlite3_context, _: c_int, arguments: *mut *mut sqlite3_value) {
    // SAFETY: SQLite makes this call, and passes the one argument of the registration. Its text
    // lives as long as the call.
    unsafe {
        let sql = sqlite3_value_text(*arguments).cast::<c_char>();
        answer(call, |db| {
            assert!(!sql.is_null(), "eval(NULL)");
            db.query::<String>(CStr::from_ptr(sql), &[]).unwrap()
        });
    }
}

/// The SQL function `fetch(url)`: a web server's answer.
///
/// While it waits, its fiber is suspended in the middle of the statement, and the thread runs other
/// fibers. A thread without fibers is blocked.
unsafe extern "C" fn fetch(call: *mut sqlite3_context, _: c_int, arguments: *mut *mut sqlite3_value) {
    // SAFETY: SQLite makes this call, and passes the one argument of the registration. Its text
    // lives as long as the call.
    unsafe {
        let url = sqlite3_value_text(*arguments).cast::<c_char>();
        answer(call, |_| {
            assert!(!url.is_null(), "fetch(NULL)");
            upcall::wait(http::get(CStr::from_ptr(url).to_str().unwrap())).unwrap()
        });
    }
}

/// The SQL function `snapshot()`: every thread with its open calls, as text.
unsafe extern "C" fn snapshot(call: *mut sqlite3_context, _: c_int, _: *mut *mut sqlite3_value) {
    // SAFETY: SQLite makes this call.
    unsafe { answer(call, |_| upcall::snapshot().to_string()) }
}

/// Answers a call with the value of `body`. If `body` panics, answers with the panic's message as
/// an SQL error.
///
/// # Safety
/// SQLite is making `call`, to a function registered with a [`Probe`].
unsafe fn answer<T: Value>(call: *mut sqlite3_context, body: impl FnOnce(&Connection) -> T) {
    // SAFETY: the caller guarantees that `call` is open and has a `Probe`. Both are used in this
    // function only.
    let (db, probe) = unsafe { (Connection::of(call), &*sqlite3_user_data(call).cast::<Probe>()) };
    let caller = probe.at_c();
    let value = upcall::enter(|| {
        probe.in_rust(caller);
        body(&db)
    });
    // SAFETY: the caller guarantees that `call` is open. SQLite copies the message.
    unsafe {
        match value {
            Ok(value) => value.answer(call),
            Err(panicked) => {
                let message = panicked.message();
                sqlite3_result_error(call, message.as_ptr().cast(), message.len() as c_int);
            }
        }
    }
}
