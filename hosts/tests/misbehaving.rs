//! Hosts that treat their threads and stacks as no library expects. They run as in `hosts.rs`.

#[macro_use]
mod program;

use std::path::Path;
use std::process::Command;

use program::{Outcome, Program};

cases! {
    any_order {
        two_coroutines, generators, on_main, on_pthread, on_main_with_local_runtime, on_pthread_with_local_runtime,
    }
    copied {
        on_main, on_pthread, with_local_runtime, on_foreign_stack, on_registered_stack,
        told_on_main, told_on_pthread, suspended_on_main, suspended_on_pthread, suspended_on_foreign_stack,
    }
    exits {
        suspended_calls, cancelled_while_it_waits, key_destructors, panic_left_late, exit_anywhere,
        exit_in_downcall => aborts_at_exit("reached the Rust code of guest::exceptions::guest_unwinding:"),
        exit_in_pooled_downcall => aborts_at_exit("reached the Rust code of guest::exceptions::guest_unwinding_pooled:"),
        exit_in_fiber => aborts_at_exit("reached the Rust code of guest::exceptions::guest_unwinding_on_fiber:"),
        cancel_in_downcall => aborts_at_exit("reached the Rust code of guest::exceptions::guest_unwinding:"),
        cancel_in_upcall => aborts_at_exit("reached the Rust code of guest::exceptions::guest_unwinding_plain:"),
    }
    suspended_ends {
        killed_under_rust, killed_by_resume, ends_before_its_wake, initialisers, while_panicking, signal_handlers,
        interrupted_anywhere, panics_after_waits, tasks, scopes, abandoned_calls, on_many_threads, uninstalled,
        detached, dumped_at_any_moment, shut_down, threads_end, threads_end_while_woken, forked, forked_while_woken,
        forked_as_sleeps_end, exit_anywhere,
        moved => Outcome::Aborts(MOVED_IN_WAIT),
        moved_from_the_dead => Outcome::Aborts("which began on a thread that has exited, came back on thread 0x"),
    }
    plugins {
        threads_call_on, busy, again, constructor_waits, two_nested, two_panic, two_fork, two_closed, two_wait,
        moved_in_place => Outcome::Aborts("the downcall of guest::moved::guest_moving, which began on a thread that has exited"),
        moved_pooled => Outcome::Aborts("the downcall of guest::moved::guest_moving_pooled, which began on a thread that has exited"),
        moved_plain => Outcome::Aborts("the upcall of guest::guest_call_plain, which began on a thread that has exited"),
    }
}

/// The end of a thread in C under Rust: musl does not unwind, so nothing reaches Rust.
fn aborts_at_exit(said: &'static str) -> Outcome {
    if program::on_musl() { Outcome::Success } else { Outcome::Aborts(said) }
}

/// A coroutine suspended by a wait, resumed on another thread.
const MOVED_IN_WAIT: &str = ": the host resumed a stack around 0x";

/// Cases of `c/moved.c`: the name, the call in the report, and the report's name for its stack.
const MOVED: [(&str, &str, &str); 13] = [
    (
        "in_place",
        "the downcall of guest::moved::guest_moving",
        "the registered stack \"the coroutine's\", 0x20000000..0x20040000",
    ),
    ("pooled", "the downcall of guest::moved::guest_moving", "a stack around 0x2003"),
    (
        "pooled_registered",
        "the downcall of guest::moved::guest_moving_pooled",
        "the registered stack \"the coroutine's\", 0x20000000..0x20040000",
    ),
    ("by_choice", "the downcall of guest::moved::guest_moving_caller", "a stack around 0x2003"),
    (
        "plain_in_place",
        "the upcall of guest::guest_call_plain",
        "the registered stack \"the coroutine's\", 0x20000000..0x20040000",
    ),
    ("plain_pooled", "the upcall of guest::guest_call_plain", "a stack around 0x2003"),
    (
        "with_stack",
        "guest::moved::guest_moving_with_stack",
        "the registered stack \"the coroutine's\", 0x20000000..0x20040000",
    ),
    ("in_fiber", "the downcall of guest::moved::guest_moving_in_fiber", ""),
    ("on_fiber", "the downcall of guest::moved::guest_moving_on_fiber", ""),
    ("plain_in_fiber", "fiber ", ""),
    ("waits_on_fiber", "fiber \"moved\"", ""),
    ("inner", "the downcall of guest::moved::guest_moving_pooled", ""),
    ("inner_on_fiber", "the downcall of guest::moved::guest_moving_pooled", ""),
];

fn moved_coroutines_are_reported(threads: &'static str, began_on: &'static str) {
    for &link in program::links_of("moved") {
        let moved = Program::built("moved", link);
        for (case, call, stack) in MOVED {
            // Windows chooses the address.
            let stack =
                if program::on_windows() { stack.split_inclusive("0x").next().unwrap_or("") } else { stack };
            let said = [call, began_on, "came back on thread 0x", "(second): the host resumed ", stack];
            moved.run(case, &[("HOST_MOVE", threads)], Outcome::AbortsSaying(said));
        }
    }
}

#[test]
fn moved_to_a_thread_without_upcalls() {
    moved_coroutines_are_reported("alive", "(first)");
}

#[test]
fn moved_to_a_thread_with_upcalls() {
    moved_coroutines_are_reported("attached", "(first)");
}

#[test]
fn moved_into_an_upcall() {
    moved_coroutines_are_reported("inside", "(first)");
}

#[test]
fn moved_from_a_thread_that_has_exited() {
    moved_coroutines_are_reported("exited", "on a thread that has exited");
}

#[test]
fn moved_from_a_thread_that_has_exited_into_an_upcall() {
    moved_coroutines_are_reported("exited, inside", "on a thread that has exited");
}

/// Moves the first thread's own stack, instead of a coroutine.
#[test]
fn moved_own_stack() {
    let stack = if cfg!(stackbounds_no_query) { "a stack around 0x" } else { "the own stack of thread 0x" };
    for &link in program::links_of("moved") {
        for threads in ["alive", "attached", "inside"] {
            let call = "the downcall of guest::moved::guest_moving";
            let said = [call, "(first)", "came back on thread 0x", "(second): the host resumed ", stack];
            Program::built("moved", link).run(
                "own_stack",
                &[("HOST_MOVE", threads)],
                Outcome::AbortsSaying(said),
            );
        }
    }
}

#[test]
fn a_host_ends_the_process_its_own_way() {
    let ends =
        Outcome::Exits(3, "the host's log: the downcall of guest::moved::guest_moving, which began on");
    for &link in program::links_of("moved") {
        Program::built("moved", link).run("hosts_handler", &[("HOST_MOVE", "alive")], ends);
    }
}

#[test]
fn cpp_exceptions_stay_in_cpp() {
    if program::can_build("exceptions") {
        for &link in program::links_of("exceptions") {
            let exceptions = Program::built("exceptions", link);
            for case in ["caught_below", "across_upcalls", "panics"] {
                exceptions.run(case, &[], Outcome::Success);
            }
        }
    }
}

#[test]
fn cpp_exceptions_that_reach_rust_are_reported() {
    let reported = [
        ("reaches_downcall", "guest_unwinding:"),
        ("reaches_downcall_from_pooled", "guest_unwinding_pooled:"),
        ("reaches_upcall", "guest_unwinding_plain:"),
        ("reaches_pooled_upcall", "guest_unwinding_plain_pooled:"),
        ("reaches_fiber", "guest_unwinding_in_fiber:"),
        ("reaches_downcall_on_fiber", "guest_unwinding_on_fiber:"),
        ("reaches_coroutine", "guest_unwinding:"),
    ];
    // Rust was told that none of these callbacks unwinds. The runtime of C++ or upcall stops the
    // process. Optimised code in place lets the exception pass, as it lets `longjmp` pass. On
    // Windows, the process ends in one way or another.
    let stopped: &[&str] = if program::on_windows() {
        &[]
    } else if cfg!(debug_assertions) {
        &["not_declared", "not_declared_pooled", "not_declared_in_upcall", "not_declared_in_fiber"]
    } else {
        &["not_declared_pooled", "not_declared_in_fiber"]
    };
    if program::can_build("exceptions") {
        for &link in program::links_of("exceptions") {
            let exceptions = Program::built("exceptions", link);
            for (case, reached) in reported {
                exceptions.run(case, &[], Outcome::Aborts(reached));
            }
            for case in stopped {
                exceptions.run(case, &[], Outcome::Aborts(""));
            }
        }
    }
}

/// Operations awaited by asyncio. With the interpreter's end among the cases, a few times each.
#[test]
fn asyncio() {
    let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let new_enough = ["-c", "import asyncio; asyncio.timeout"];
        Command::new(python).args(new_enough).output().is_ok_and(|run| run.status.success())
    });
    let Some(python) = python else { return program::skipped("asyncio", "Python 3.11 or later") };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("real/python/tasks.py");
    let cases = ["awaited", "cancelled", "by_descriptor", "on_threads", "loop_ends_first"];
    let exits = ["exits_at_once", "exits_after_shutdown"];
    for case in cases.into_iter().chain(std::iter::repeat_n(exits, 5).flatten()) {
        let library = program::libraries().join("libguest.so");
        let done = Outcome::Prints("done");
        program::run(Command::new(python).arg(&script).arg(case).arg(library), case, done);
    }
}

#[test]
fn greenlets() {
    let pythons = ["python3", "/usr/bin/python3"];
    let has_greenlet = |python: &&str| {
        Command::new(python).args(["-c", "import greenlet"]).output().is_ok_and(|run| run.status.success())
    };
    match pythons.iter().find(|python| has_greenlet(python)) {
        None => program::skipped("greenlets", "Python with greenlet"),
        Some(python) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("real/python/greenlets.py");
            let library = program::libraries().join("libguest.so");
            let done = Outcome::Prints("seeds with greenlets");
            program::run(Command::new(python).arg(script).arg(library), "greenlets", done);
        }
    }
}
