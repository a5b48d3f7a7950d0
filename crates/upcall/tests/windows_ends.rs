//! Ends of threads and processes on Windows.
//!
//! At a thread's end, the loader calls functions of each module, under its lock: first that of
//! Rust's thread-locals, then upcall's. Those of modules loaded earlier come later.
#![cfg(windows)]

mod common;

use std::cell::Cell;
use std::ffi::c_void;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use common::sys::Teb;
use common::{AtDrop, FIBERS, child, part, poll, time_limit};
use upcall::{Fiber, StackChoice, downcall, enter, entry, sleep, snapshot, wait};
use windows_sys::Win32::System::SystemServices::DLL_THREAD_DETACH;
use windows_sys::Win32::System::Threading::{ExitProcess, GetCurrentThreadId};

thread_local! {
    /// Called at the end of the thread, after upcall's own function.
    static LAST: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// The loader calls such functions in the order of their sections' names. upcall's is in
/// `.CRT$XLC`.
#[used]
#[unsafe(link_section = ".CRT$XLX")]
static AT_LAST: unsafe extern "system" fn(*mut c_void, u32, *mut c_void) = at_last;

unsafe extern "system" fn at_last(_module: *mut c_void, reason: u32, _reserved: *mut c_void) {
    if let (DLL_THREAD_DETACH, Some(call)) = (reason, LAST.take()) {
        call();
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Upcalls and a downcall, as a destructor makes them.
fn calls() {
    let own = Teb::right();
    for choice in [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled] {
        let upcall = || {
            downcall(|| assert_eq!(Teb::right().stack(), own.stack()));
            assert!(enter(|| panic!("a destructor's")).map(|never: ()| never).is_err());
        };
        entry().stack(choice).enter(upcall).unwrap();
    }
    CALLS.fetch_add(1, SeqCst);
}

/// Makes calls when it is dropped.
struct CallsAtDrop;

impl Drop for CallsAtDrop {
    fn drop(&mut self) {
        calls();
    }
}

thread_local! {
    static EARLIER: CallsAtDrop = const { CallsAtDrop };
    static LATER: CallsAtDrop = const { CallsAtDrop };
}

/// The live threads known to upcall.
fn known() -> usize {
    snapshot().threads.len()
}

#[test]
fn calls_at_a_threads_end_leave_nothing_behind() {
    const THREADS: usize = 50;
    const NAME: &str = "calls_at_a_threads_end_leave_nothing_behind";
    if part().is_none() {
        common::stderr_of_success(&child(NAME, "alone", &[]));
        return;
    }
    let _limit = time_limit(NAME);
    std::panic::set_hook(Box::new(|_| ()));
    enter(|| ()).unwrap();
    let (threads, before) = (known(), known_stacks());
    for first_upcall in [true, false] {
        CALLS.store(0, SeqCst);
        for _ in 0..THREADS {
            let body = move || {
                LAST.set(Some(calls));
                EARLIER.with(|_| ());
                if first_upcall {
                    enter(|| ()).unwrap();
                }
                LATER.with(|_| ());
            };
            thread::spawn(body).join().unwrap();
        }
        assert_eq!(CALLS.load(SeqCst), 3 * THREADS);
        assert_eq!(known(), threads, "records are given back");
    }
    assert!(known_stacks() <= before + 2, "so are stacks");
}

/// The pooled stacks in use.
fn known_stacks() -> usize {
    snapshot().pool.in_use
}

#[test]
fn a_thread_ends_with_suspended_fibers() {
    thread_local! {
        static KEPT: Cell<Vec<Pin<Box<Fiber<()>>>>> = const { Cell::new(Vec::new()) };
    }
    let _limit = time_limit("a_thread_ends_with_suspended_fibers");
    for _ in 0..5 {
        let (sender, receiver) = mpsc::channel();
        let ends = thread::spawn(move || {
            let fibers = (0..20).map(|number| {
                let sender = sender.clone();
                let mut fiber = Box::pin(FIBERS.fiber(move || {
                    let own = Teb::right();
                    let _said = AtDrop(move || {
                        assert_eq!(Teb::right().stack(), own.stack());
                        enter(|| downcall(|| ())).unwrap();
                        sender.send((number, thread_number())).unwrap();
                    });
                    wait(std::future::pending::<()>());
                }));
                assert!(poll(&mut fiber).is_pending());
                fiber
            });
            KEPT.set(fibers.collect());
            thread_number()
        });
        let ended = ends.join().unwrap();
        let told: Vec<_> = receiver.iter().collect();
        assert_eq!(told, (0..20).map(|number| (number, ended)).collect::<Vec<_>>());
    }
}

fn thread_number() -> u32 {
    // SAFETY: the function has no precondition.
    unsafe { GetCurrentThreadId() }
}

#[test]
fn a_process_ends_with_threads_in_upcalls() {
    const NAME: &str = "a_process_ends_with_threads_in_upcalls";
    const CODE: i32 = 77;
    const BUSY: usize = 4;
    if part().is_none() {
        for _ in 0..5 {
            let ended = child(NAME, "ends", &[]);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!((ended.status.code(), said.contains("upcall:")), (Some(CODE), false), "{said}");
        }
        return;
    }
    let _limit = time_limit(NAME);
    let inside: &'static Barrier = Box::leak(Box::new(Barrier::new(2 * BUSY + 1)));
    for _ in 0..BUSY {
        thread::spawn(|| {
            inside.wait();
            loop {
                // Takes stacks, records, timers, and the locks of each.
                entry().stack(StackChoice::Pooled).enter(|| downcall(|| enter(|| ()).unwrap())).unwrap();
                with_many_stacks();
                thread::spawn(|| enter(|| ()).unwrap());
                FIBERS.spawn(|| sleep(Duration::from_micros(10))).join().unwrap();
            }
        });
        thread::spawn(|| {
            let waits = || {
                inside.wait();
                wait(std::future::pending::<()>());
            };
            enter(|| downcall(|| enter(waits).unwrap())).unwrap();
        });
    }
    inside.wait();
    thread::sleep(Duration::from_millis(50));
    let ends = || {
        downcall(|| {
            // SAFETY: the purpose of this test.
            unsafe { ExitProcess(CODE as u32) }
        })
    };
    entry().stack(StackChoice::Pooled).enter(ends).unwrap();
}

fn with_many_stacks() {
    let fibers: Vec<_> = (0..20)
        .map(|_| {
            let mut fiber = Box::pin(FIBERS.fiber(upcall::yield_now));
            assert!(poll(&mut fiber).is_pending());
            fiber
        })
        .collect();
    fibers.into_iter().for_each(wait);
}
