//! Stack overflows in Rust programs, beside the standard library's handler.

mod common;
#[path = "common/faults.rs"]
#[allow(dead_code, reason = "each test program uses some of it")]
mod faults;

use std::hint::black_box;

use common::FIBERS;
use common::{child, part};
use faults::{ACCESS, DIES_OF_ACCESS, DIES_OF_OVERFLOW, DIES_OF_OWN_OVERFLOW};
use upcall::{StackChoice, downcall, enter, entry, report};

/// Part of std's message for an overflow of a thread's own stack.
const STD: &str = "has overflowed its stack";

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[7] }
}

fn on_a_thread(f: impl FnOnce() -> u64 + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep".to_owned());
        let f = || {
            faults::dies_quietly();
            f()
        };
        thread.spawn_scoped(scope, f).unwrap().join().unwrap();
    });
}

/// Overflows the thread's own stack, also if its bounds are unknown.
fn nested() -> u64 {
    let here = || entry().stack(StackChoice::Caller);
    here().enter(|| downcall(|| here().enter(|| recurse(0)).unwrap())).unwrap()
}

/// Runs a part of `test`. Returns the end of its process, and its stderr.
fn dies(test: &str, part: &str) -> (Option<i32>, String) {
    let output = child(test, part, &[]);
    (faults::dies_of(output.status), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn both_reports_are_made_of_a_thread_s_own_stack() {
    const NAME: &str = "both_reports_are_made_of_a_thread_s_own_stack";
    match part().as_deref() {
        None => {}
        Some("installed") => {
            report::install().unwrap();
            report::install().unwrap();
            return on_a_thread(nested);
        }
        Some(_) => return on_a_thread(nested),
    }
    let (end, said) = dies(NAME, "installed");
    assert_eq!(end, DIES_OF_OWN_OVERFLOW, "{said}");
    if cfg!(not(stackbounds_no_query)) {
        let ours = said.find("(deep): the thread's own stack, ").expect(&said);
        assert!(ours < said.find(STD).expect(&said), "first ours\n{said}");
        assert_eq!(said.matches("upcall: stack overflow").count(), 1, "{said}");
        assert_eq!(said.matches("C → Rust, called from the thread's own stack").count(), 2, "{said}");
        assert_eq!(said.matches(": overflow::").count(), 2, "{said}");
        assert_eq!(said.matches("Rust → C, C runs on the thread's own stack").count(), 1, "{said}");
    }
    let (end, said) = dies(NAME, "not installed");
    assert_eq!(end, DIES_OF_OWN_OVERFLOW, "{said}");
    assert!(said.contains(STD) && !said.contains("upcall:"), "a guest is silent\n{said}");
}

#[test]
fn std_takes_no_fiber_s_stack_for_the_thread_s() {
    if part().is_some() {
        report::install().unwrap();
        return on_a_thread(|| upcall::wait(FIBERS.builder().name("tower").build(|| recurse(0)).unwrap()));
    }
    let (end, said) = dies("std_takes_no_fiber_s_stack_for_the_thread_s", "tower");
    assert_eq!(end, DIES_OF_OVERFLOW, "{said}");
    assert!(said.contains("(deep): the stack of the fiber \"tower\", "), "{said}");
    assert!(said.contains(STD) != faults::STD_KNOWS, "{said}");
}

#[test]
fn the_pooled_stack_of_an_upcall_is_named() {
    if part().is_some() {
        report::install().unwrap();
        return on_a_thread(|| entry().stack(StackChoice::Pooled).enter(|| recurse(0)).unwrap());
    }
    let (end, said) = dies("the_pooled_stack_of_an_upcall_is_named", "deep");
    assert_eq!(end, DIES_OF_OVERFLOW, "{said}");
    assert!(said.contains("(deep): a pooled stack that an upcall runs on, "), "{said}");
    assert_eq!(said.matches("upcall: stack overflow").count(), 1, "{said}");
    assert_eq!(said.matches(": overflow::").count(), 1, "{said}");
}

#[test]
fn a_fault_that_is_no_overflow_tells_the_calls() {
    const NAME: &str = "a_fault_that_is_no_overflow_tells_the_calls";
    if let Some(part) = part() {
        if part == "overflows" {
            upcall::config().reports(upcall::Reports::Overflows).install().unwrap();
        }
        report::install().unwrap();
        return on_a_thread(|| {
            enter(|| {
                downcall(|| {
                    enter(|| {
                        if part == "abort" {
                            std::process::abort();
                        }
                        // SAFETY: none. The fault is the purpose of this test.
                        unsafe { black_box(16 as *const u64).read_volatile() }
                    })
                    .unwrap()
                })
            })
            .unwrap()
        });
    }
    let ends = [("null", DIES_OF_ACCESS, Some(ACCESS)), ("abort", faults::DIES_OF_ABORT, faults::ABORT)];
    for (part, end, what) in ends {
        let (died_of, said) = dies(NAME, part);
        assert_eq!(died_of, end, "{said}");
        let Some(what) = what else {
            assert!(!said.contains("upcall:"), "{said}");
            continue;
        };
        assert_eq!(said.matches(what).count(), 1, "{said}");
        if cfg!(not(stackbounds_no_query)) {
            assert_eq!(said.matches("C → Rust, called from the thread's own stack").count(), 2, "{said}");
            assert_eq!(said.matches("Rust → C, C runs on the thread's own stack").count(), 1, "{said}");
        }
    }
    let (end, said) = dies(NAME, "overflows");
    assert_eq!(end, DIES_OF_ACCESS, "{said}");
    assert!(!said.contains("upcall:"), "{said}");
}

/// The report also names the upcall that polls the faulting fiber.
#[test]
fn the_upcall_that_polls_a_fiber_is_told() {
    const NAME: &str = "the_upcall_that_polls_a_fiber_is_told";
    if part().is_some() {
        report::install().unwrap();
        return on_a_thread(|| {
            enter(|| {
                upcall::wait(FIBERS.fiber(|| {
                    // SAFETY: none. The fault is the purpose of this test.
                    enter(|| unsafe { black_box(16 as *const u64).read_volatile() }).unwrap()
                }))
            })
            .unwrap()
        });
    }
    let (end, said) = dies(NAME, "null");
    assert_eq!(end, DIES_OF_ACCESS, "{said}");
    assert_eq!(said.matches("C → Rust, called from a pooled stack").count(), 1, "{said}");
    if cfg!(not(stackbounds_no_query)) {
        assert_eq!(said.matches("C → Rust, called from the thread's own stack").count(), 1, "{said}");
    }
}
