//! What the tests share. Each uses some of it.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::ffi::{c_int, c_void};
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

use upcall::Refusal;

/// Has the process abort, naming the test, unless what this returns is dropped within a minute.
#[must_use]
pub fn time_limit(test: &'static str) -> mpsc::Sender<()> {
    let (ends, end) = mpsc::channel();
    std::thread::spawn(move || {
        if end.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not by `eprintln`, which the test harness catches and the abort would lose.
            let _ =
                writeln!(std::io::stderr(), "{test} has not ended within a minute; the process is stopped");
            std::process::abort();
        }
    });
    ends
}

/// The variable that says what a child process is to do.
const CHILD: &str = "UPCALL_TEST_CHILD";

/// Runs `test` of this test program, with `part` to do, in a process of its own.
pub fn child(test: &str, part: &str, variables: &[(&str, &str)]) -> Output {
    let program = std::env::current_exe().expect("a test program knows where it is");
    let mut command = Command::new("env");
    // An emulator, if it is for another architecture.
    command.args(std::env::var("TEST_RUNNER").unwrap_or_default().split_whitespace()).arg(program);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, part).envs(variables.iter().copied()).output().expect("it can be started")
}

/// What this process is to do as a child.
pub fn part() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// What a child wrote to stderr, having ended well.
pub fn stderr_of_success(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{}{text}", output.status, String::from_utf8_lossy(&output.stdout));
    text
}

/// Polls once, with nobody to be woken.
pub fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// What a panic said.
pub fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => (*payload.downcast::<&str>().expect("a message")).to_owned(),
    }
}

/// What happened, in order.
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

/// A comparator in Rust for C's `qsort`, and what its upcalls came to.
pub struct Comparator<'a> {
    compare: &'a dyn Fn(i32, i32) -> Ordering,
    pub panics: Cell<u32>,
    pub refusals: Cell<u32>,
}

/// What C gets from an upcall that did not answer.
const DECLARED: c_int = 0;

impl<'a> Comparator<'a> {
    pub fn new(compare: &'a dyn Fn(i32, i32) -> Ordering) -> Self {
        Self { compare, panics: Cell::new(0), refusals: Cell::new(0) }
    }

    /// Calls C to sort `numbers`.
    pub fn sort(&self, numbers: &mut [i32]) {
        type Element<'a> = (i32, &'a Comparator<'a>);
        extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
            // SAFETY: qsort passes elements of the array below.
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
        // SAFETY: the array is valid for the length given, and `compare` reads its elements.
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

/// Numbers without order, the same ones each time: xorshift.
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

/// The thread's last message.
pub fn last_panic() -> String {
    let mut buffer = [0u8; 1024];
    // SAFETY: the buffer has the size given.
    let length = unsafe { upcall::upcall_last_panic(buffer.as_mut_ptr().cast(), buffer.len()) };
    String::from_utf8_lossy(&buffer[..usize::try_from(length).unwrap_or(0)]).into_owned()
}

/// Counts its drops.
pub struct Counted(pub Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}
