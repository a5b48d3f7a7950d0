//! Asynchronous operations, started by C.

use std::ffi::{c_int, c_uint, c_void};
use std::fmt;
use std::future::pending;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use upcall::{Completion, CompletionFn, PartSender, Task, TaskBuilder, enter, timer};

use crate::{FIBERS, or_failed};

type Error = Box<dyn std::error::Error + Send + Sync>;

const ON_WORKERS: c_uint = 1;
const LATER: c_uint = 2;
const LOCAL: c_uint = 4;
const ON_LOOP: c_uint = 8;

/// The number of operations not yet dropped.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts a future from its making to its drop.
struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, SeqCst);
    }
}

/// An error with a source.
#[derive(Debug)]
struct NoSuchName(io::Error);

impl fmt::Display for NoSuchName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no such name")
    }
}

impl std::error::Error for NoSuchName {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

async fn operation(kind: c_int, time: Duration, alive: Alive) -> Result<c_int, Error> {
    let _alive = alive;
    if !time.is_zero() {
        timer(time).await;
    }
    match kind {
        0 => Ok(7),
        1 => Err(NoSuchName(io::Error::other("the list is empty")).into()),
        2 => panic!("out of names"),
        _ => pending().await,
    }
}

/// Starts an operation of a kind, ready after `milliseconds`. Returns null if it did not start.
///
/// # Safety
/// The thread named by `options` may call `done(data, …)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_start(
    kind: c_int,
    milliseconds: c_uint,
    options: c_uint,
    done: Option<CompletionFn>,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller gives a function to be called there.
    let mut done = unsafe { Completion::c(done, data) };
    enter(|| {
        let mut builder = TaskBuilder::new();
        if options & ON_WORKERS != 0 {
            builder = builder.on_workers();
        }
        if options & LATER != 0 {
            builder = builder.later();
        }
        if options & ON_LOOP != 0 {
            done = done.on(&FIBERS.local_runtime_handle().expect("the thread has a runtime"));
        }
        let operation = operation(kind, Duration::from_millis(milliseconds.into()), Alive::new());
        let started = if options & LOCAL != 0 {
            builder.start_local(operation, done)
        } else {
            builder.start(operation, done)
        };
        started.unwrap_or_else(|error| panic!("{error}"))
    })
    .unwrap_or(null_mut())
}

/// Starts an endless operation with a deadline.
///
/// # Safety
/// Any thread may call `done(data, …)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_start_with_deadline(
    milliseconds: c_uint,
    done: Option<CompletionFn>,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller allows the call on any thread.
    let done = unsafe { Completion::c(done, data) };
    let deadline = Duration::from_millis(milliseconds.into());
    let never = operation(3, Duration::ZERO, Alive::new());
    enter(|| TaskBuilder::new().deadline(deadline).start(never, done).unwrap()).unwrap_or(null_mut())
}

/// Starts an operation whose result is the numbers from 0 to `parts`, through a queue.
///
/// # Safety
/// Any thread may call `done(data, …)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn guest_start_parts(
    parts: c_int,
    capacity: usize,
    done: Option<CompletionFn>,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller allows the call on any thread.
    let done = unsafe { Completion::c(done, data) };
    let alive = Alive::new();
    let operation = move |mut sender: PartSender<c_int>| async move {
        let _alive = alive;
        for part in 0..parts {
            sender.send(part).await?;
        }
        Ok::<_, Error>(())
    };
    enter(|| TaskBuilder::new().start_parts(capacity, operation, done).unwrap()).unwrap_or(null_mut())
}

/// Writes the value of a task. Returns 0; -1 if there is none.
#[upcall::export(on_error = -1, on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn guest_task_value(task: *mut Task, value: &mut c_int) -> c_int {
    *value = Task::take(task)?;
    Ok(0)
}

/// Writes the next part of a task. Returns 1; 0 if there are no more.
#[unsafe(no_mangle)]
pub extern "C" fn guest_task_part(task: *mut Task, part: &mut c_int) -> c_int {
    or_failed(enter(|| match Task::next_part(task, None).unwrap_or_else(|error| panic!("{error}")) {
        Some(next) => {
            *part = next;
            1
        }
        None => 0,
    }))
}

/// The number of running tasks.
#[unsafe(no_mangle)]
pub extern "C" fn guest_running_tasks() -> c_int {
    Task::running() as c_int
}

/// The number of operations not yet dropped.
#[unsafe(no_mangle)]
pub extern "C" fn guest_operations_alive() -> c_int {
    ALIVE.load(SeqCst) as c_int
}
