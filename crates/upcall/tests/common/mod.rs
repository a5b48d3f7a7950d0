//! Helpers shared by the tests. Each test program uses some of them.
#![allow(dead_code)]

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
pub mod sys;

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::ffi::{OsStr, c_int, c_void};
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use upcall::{Fibers, Refusal};

// SAFETY: no code on the tests' fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits. `thread_locals.rs` breaks this on purpose, to test the
// remedies.
pub const FIBERS: Fibers = unsafe { Fibers::promise() };

/// Aborts the process and names `test`, unless the returned value is dropped within a minute.
#[must_use]
pub fn time_limit(test: &'static str) -> mpsc::Sender<()> {
    let (ends, end) = mpsc::channel();
    std::thread::spawn(move || {
        if end.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // The test harness captures `eprintln`, and the abort would lose its text.
            let _ =
                writeln!(std::io::stderr(), "{test} has not ended within a minute; the process is stopped");
            std::process::abort();
        }
    });
    ends
}

/// The environment variable with a child process's part.
const CHILD: &str = "UPCALL_TEST_CHILD";

/// Runs `part` of `test`, a test of this program, in a child process.
pub fn child(test: &str, part: &str, variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().expect("a test program knows where it is");
    // Empty, or an emulator for programs of another architecture.
    let runner = std::env::var("TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("one word at least"));
    command.args(words);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, part).envs(variables.iter().copied()).output().expect("it can be started")
}

/// The part of this process, if it is a child.
pub fn part() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// The text on stderr of a child. Asserts the child's success.
pub fn stderr_of_success(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{}{text}", output.status, String::from_utf8_lossy(&output.stdout));
    text
}

/// Polls once, with a waker without effect.
pub fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The message of a panic.
pub fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// Events, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    pub fn add(&self, what: &'static str) {
        self.0.borrow_mut().push(what);
    }

    /// Adds `what` when the returned value is dropped.
    pub fn at_drop(&self, what: &'static str) -> AtDrop<impl FnMut() + use<>> {
        let log = self.clone();
        AtDrop(move || log.add(what))
    }

    pub fn take(&self) -> Vec<&'static str> {
        self.0.take()
    }
}

/// Calls its function when it is dropped.
pub struct AtDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A Rust comparator for C's `qsort`, and the numbers of its upcalls with panics and with refusals.
pub struct Comparator<'a> {
    compare: &'a dyn Fn(i32, i32) -> Ordering,
    pub panics: Cell<u32>,
    pub refusals: Cell<u32>,
}

/// The answer to C if an upcall fails.
const DECLARED: c_int = 0;

impl<'a> Comparator<'a> {
    pub fn new(compare: &'a dyn Fn(i32, i32) -> Ordering) -> Self {
        Self { compare, panics: Cell::new(0), refusals: Cell::new(0) }
    }

    /// Calls C to sort `numbers`.
    pub fn sort(&self, numbers: &mut [i32]) {
        type Element<'a> = (i32, &'a Comparator<'a>);
        extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
            // SAFETY: `qsort` passes addresses of elements of the array below.
            let ((a, comparator), (b, _)) = unsafe { (*a.cast::<Element<'_>>(), *b.cast::<Element<'_>>()) };
            match upcall::enter(|| (comparator.compare)(a, b) as c_int) {
                Ok(answer) => answer,
                Err(error) => {
                    let counter = match error.refusal() {
                        Some(refusal) => {
                            assert_eq!(*refusal, Refusal::FiberDropped);
                            &comparator.refusals
                        }
                        None => &comparator.panics,
                    };
                    counter.set(counter.get() + 1);
                    DECLARED
                }
            }
        }
        let mut elements: Vec<Element<'_>> = numbers.iter().map(|&number| (number, self)).collect();
        // SAFETY: the pointer, length and size describe `elements`, and `compare` reads elements
        // only.
        unsafe {
            libc::qsort(
                elements.as_mut_ptr().cast(),
                elements.len(),
                size_of::<Element<'_>>(),
                Some(compare),
            );
        }
        for (number, element) in numbers.iter_mut().zip(elements) {
            *number = element.0;
        }
    }
}

/// A comparator with its data as the first argument.
pub type DataFirst = unsafe extern "C" fn(*mut c_void, *const c_void, *const c_void) -> c_int;
/// A comparator with its data as the last argument.
pub type DataLast = unsafe extern "C" fn(*const c_void, *const c_void, *mut c_void) -> c_int;

/// Pseudorandom numbers by xorshift, in the same sequence each time.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// The calling thread's last message.
pub fn last_panic() -> String {
    let mut buffer = [0u8; 1024];
    // SAFETY: the buffer is valid for writing, for the length passed.
    let length = unsafe { upcall::c::last_message(buffer.as_mut_ptr().cast(), buffer.len()) };
    String::from_utf8_lossy(&buffer[..usize::try_from(length).unwrap_or(0)]).into_owned()
}

/// Counts its drops.
pub struct Counted(pub Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}
