//! The functions behind `shim.c`. They run on the caller's stack, except in two ways of
//! `host_check_stack`.
//!
//! PostgreSQL measures its depth by the address of a local, against `max_stack_depth`.
//!
//! Errors of PostgreSQL's arrive as values, because `pg_query` catches them below us. The exception
//! is `host_leave`: there, `siglongjmp` skips Rust frames. No destructor runs in them, so they must
//! own nothing that needs one.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::AsRawFd;
use std::process;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use upcall::report::{Call, Direction};
use upcall::{StackChoice, downcall, entry, sleep, snapshot, wait};

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// The result of a call: a value, or an error.
#[repr(C)]
pub struct Reply {
    value: i64,
    sqlstate: c_int,
    message: [c_char; 500],
}

impl Reply {
    const EMPTY: Self = Self { value: 0, sqlstate: 0, message: [0; 500] };

    fn set_message(&mut self, message: &str) {
        let text = message.bytes().take(self.message.len() - 1).chain([0]);
        self.message.iter_mut().zip(text).for_each(|(to, byte)| *to = byte as c_char);
    }
}

/// An error of PostgreSQL's, or one of ours, with the code 0.
struct Error {
    sqlstate: c_int,
    message: String,
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self { sqlstate: 0, message: error.to_string() }
    }
}

unsafe extern "C" {
    fn pg_query(sql: *const c_char, reply: &mut Reply) -> bool;
    fn pg_query_raising(sql: *const c_char, reply: &mut Reply) -> bool;
    fn pg_wait(fd: c_int, reply: &mut Reply) -> bool;
    safe fn pg_stack_is_too_deep() -> bool;
}

/// Runs the body of an SQL function as an upcall.
fn answer(reply: &mut Reply, stack: StackChoice, f: impl FnOnce() -> Result<i64, Error>) -> bool {
    match entry().stack(stack).enter(f).unwrap_or_else(|panicked| Err(panicked.into())) {
        Ok(value) => {
            reply.value = value;
            true
        }
        Err(error) => {
            reply.sqlstate = error.sqlstate;
            reply.set_message(&error.message);
            false
        }
    }
}

/// Calls a C function by a downcall.
fn ask(f: impl FnOnce(&mut Reply) -> bool) -> Result<i64, Error> {
    let mut reply = Reply::EMPTY;
    if downcall(|| f(&mut reply)) {
        return Ok(reply.value);
    }
    // SAFETY: C ends the message with 0.
    let message = unsafe { CStr::from_ptr(reply.message.as_ptr()) };
    Err(Error { sqlstate: reply.sqlstate, message: message.to_string_lossy().into() })
}

/// Runs a query by SPI.
fn query(sql: &CStr) -> Result<i64, Error> {
    // SAFETY: `sql` is a C string and `reply` is valid. `pg_query` raises no error.
    ask(|reply| unsafe { pg_query(sql.as_ptr(), reply) })
}

/// The process that loaded the library.
static LOADED_IN: AtomicU32 = AtomicU32::new(0);

/// The deepest nesting of `host_nest`.
static DEEPEST: AtomicU64 = AtomicU64::new(0);

/// Runs when the library is loaded, perhaps into the postmaster. It makes an upcall and a wait, but
/// no thread.
#[unsafe(no_mangle)]
pub extern "C" fn host_load(reply: &mut Reply) -> bool {
    answer(reply, StackChoice::Caller, || {
        LOADED_IN.store(wait(FIBERS.fiber(process::id)), Relaxed);
        Ok(0)
    })
}

/// Runs a query and returns its value. Its error becomes ours.
///
/// # Safety
/// `sql` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_query(reply: &mut Reply, sql: *const c_char) -> bool {
    // SAFETY: the caller guarantees that `sql` is a C string.
    answer(reply, StackChoice::Caller, || query(unsafe { CStr::from_ptr(sql) }))
}

/// Runs a query and replies with the text of its error, or with an empty text.
///
/// # Safety
/// `sql` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_try(reply: &mut Reply, sql: *const c_char) -> bool {
    let mut error = None;
    let done = answer(reply, StackChoice::Caller, || {
        // SAFETY: the caller guarantees that `sql` is a C string.
        error = query(unsafe { CStr::from_ptr(sql) }).err();
        Ok(0)
    });
    if let Some(error) = error {
        reply.set_message(&error.message);
    }
    done
}

/// Runs a query. Its error is raised over the frames of this function.
///
/// # Safety
/// `sql` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_leave(reply: &mut Reply, sql: *const c_char) -> bool {
    answer(reply, StackChoice::Caller, || {
        // SAFETY: `sql` is a C string, as the caller guarantees, and `reply` is valid. An error
        // skips only frames with nothing to drop.
        ask(|reply| unsafe { pg_query_raising(sql, reply) })
    })
}

/// Panics with `message`.
///
/// # Safety
/// `message` must be a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_panic(reply: &mut Reply, message: *const c_char) -> bool {
    answer(reply, StackChoice::Caller, || {
        // SAFETY: the caller guarantees that `message` is a C string.
        panic!("{}", unsafe { CStr::from_ptr(message) }.to_string_lossy())
    })
}

/// Nests SQL → Rust → SQL → …, this many levels.
#[unsafe(no_mangle)]
pub extern "C" fn host_nest(reply: &mut Reply, levels: c_int) -> bool {
    static LEVEL: AtomicU64 = AtomicU64::new(0);
    answer(reply, StackChoice::Caller, || {
        let level = LEVEL.fetch_add(1, Relaxed) + 1;
        DEEPEST.fetch_max(level, Relaxed);
        let inner = match levels {
            0 => Ok(0),
            _ => query(&CString::new(format!("SELECT 1 + rust_nest({})", levels - 1))?),
        };
        LEVEL.fetch_sub(1, Relaxed);
        inner
    })
}

/// Sleeps on another thread. Returns `milliseconds`.
fn found_elsewhere(milliseconds: c_int) -> i64 {
    let find = move || {
        sleep(Duration::from_millis(milliseconds as u64));
        i64::from(milliseconds)
    };
    FIBERS.spawn(find).join().unwrap()
}

/// Waits for another thread. The backend notices nothing meanwhile.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait(reply: &mut Reply, milliseconds: c_int) -> bool {
    answer(reply, StackChoice::Caller, || Ok(found_elsewhere(milliseconds)))
}

/// Waits for another thread in a fiber, while the backend waits for its latch or for the fiber.
///
/// So the backend handles interrupts as in its own waits. If nothing waits for the fiber any more,
/// the fiber ends in its wait.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_interruptibly(reply: &mut Reply, milliseconds: c_int) -> bool {
    answer(reply, StackChoice::Caller, || {
        let runtime = FIBERS.local_runtime()?;
        let fiber = runtime.spawn_local(move || found_elsewhere(milliseconds));
        loop {
            runtime.run_ready(usize::MAX);
            if fiber.is_finished() {
                return Ok(fiber.join()?);
            }
            // SAFETY: the descriptor is open, and `pg_wait` raises no error.
            ask(|reply| unsafe { pg_wait(runtime.fd().as_raw_fd(), reply) })?;
        }
    })
}

/// Returns the id of the process, as seen by a worker.
#[unsafe(no_mangle)]
pub extern "C" fn host_worker(reply: &mut Reply) -> bool {
    answer(reply, StackChoice::Caller, || Ok(FIBERS.spawn(|| process::id().into()).join().unwrap()))
}

/// Asks PostgreSQL whether the stack under Rust is too deep.
///
/// `how`: 0 asks on the caller's stack; 1 on a pooled stack, without a downcall; 2 with a downcall.
#[unsafe(no_mangle)]
pub extern "C" fn host_check_stack(reply: &mut Reply, how: c_int) -> bool {
    let stack = if how == 0 { StackChoice::Caller } else { StackChoice::Pooled };
    answer(reply, stack, || {
        let too_deep = if how == 2 { downcall(|| pg_stack_is_too_deep()) } else { pg_stack_is_too_deep() };
        Ok(too_deep.into())
    })
}

/// Returns a number about the state of the library.
///
/// `what`: 0 is the number of open downcalls, 1 the pooled stacks in use, 2 the process that loaded
/// the library, 3 the deepest nesting.
#[unsafe(no_mangle)]
pub extern "C" fn host_state(reply: &mut Reply, what: c_int) -> bool {
    let is_downcall = |call: &&Call| call.direction == Direction::Downcall;
    answer(reply, StackChoice::Caller, || {
        let snapshot = snapshot();
        Ok(match what {
            0 => snapshot.threads.iter().flat_map(|thread| &thread.calls).filter(is_downcall).count() as i64,
            1 => snapshot.pool.in_use as i64,
            2 => LOADED_IN.load(Relaxed).into(),
            _ => DEEPEST.load(Relaxed) as i64,
        })
    })
}
