//! Runs the C programs of `c/`: each case in its own process, with a time limit.
//!
//! Each program is linked to the static and to the shared guest library.

#[macro_use]
mod program;

use program::{Link, Outcome, Program};

cases! {
    stack_switch {
        on_main, on_pthread, above_and_below, first_on_coroutine, first_on_coroutine_pthread, registered,
    }
    deep_stack {
        first_calls, later_calls, on_main, first_of_the_process, different_depths, caller_refused, sized,
        out_of_memory, takes,
    }
    nested {
        over_200_stacks, over_200_stacks_pthread, ten_thousand_levels, pooled_levels, plain_calls, first_in_first_out,
        given_back_stacks [UPCALL_IDLE_STACKS = "0"],
    }
    repeat_on_main {
        own_stack => Outcome::Prints("1000000 upcalls under strict seccomp"),
        own_stack_downcall => Outcome::Prints("1000000 upcalls under strict seccomp"),
        own_stack_pooled => Outcome::Prints("1000000 upcalls under strict seccomp"),
        foreign_stack => Outcome::Prints("1000000 upcalls under strict seccomp"),
        foreign_stack_downcall => Outcome::Prints("1000000 upcalls under strict seccomp"),
    }
    threads {
        sixty_four, detached, tiny_stacks, of_each_size, hundred_thousand, key_destructors,
        exit_inside => Outcome::Prints("both handlers ran"),
        exit_on_coroutine => Outcome::Prints("both handlers ran"),
        exit_on_pthread => Outcome::Prints("both handlers ran"),
        finished_by_destructor,
    }
    panic {
        without_downcall, one_frame, several_frames, inner_only, above_and_below, same_coroutine,
        suspended_is_not_concerned, payloads, while_dropping, kept, after_a_panic, small_stack, many,
    }
    dump {
        nested, fibers, registered, bad_descriptors,
    }
    exported {
        answers, errors, statuses, zeros, parameters, stacks, on_its_way, from_coroutine, dropped,
        nobody_to_hear => Outcome::AbortsSaying(EXPORTED_PANIC),
        nobody_to_hear_on_coroutine => Outcome::AbortsSaying(EXPORTED_PANIC),
        hosts_handler => Outcome::Exits(3, "the host's log: guest::exported::guest_exported_panic panicked"),
        error_then_panic => Outcome::AbortsSaying([
            "no value", "upcall: the on_error of", "guest::exported::guest_exported_error_then_panic", " panicked: no value", "the process is stopped",
        ]),
        two_panics => Outcome::AbortsSaying([
            "the first panic", "no value", "upcall: the on_panic of guest::exported::guest_exported_panic_twice", ": no value", "the process is stopped",
        ]),
    }
    locked {
        one_stack, when_touched, under_a_limit, afterwards,
    }
    guard {
        overflow => Outcome::Prints("overflow stopped by the guard"),
        foreign_served,
        idle_stacks [UPCALL_IDLE_STACKS = "16"],
        foreign_refused [UPCALL_FOREIGN_STACKS = "refuse"],
    }
    memory {
        strings_and_arrays, wrongly_freed, forked,
    }
    event_loop {
        driven, busy, idle, level, told_late, errors, inside, waits_meanwhile, messages,
    }
    started {
        ends, at_once, misused, chained, descriptors, on_a_loop, at_thread_exit, on_fibers, on_coroutines, many,
        shut_down, forked, forked_loop, thread_ends, at_exit,
    }
    suspended {
        sleeps, many, messages, other_threads, nested, registered, endless, fibers, killed, killed_inside,
        not_suspended, resumed_too_soon, descriptor, misused,
    }
    waits {
        on_main, on_pthreads, on_coroutines, on_registered_stacks, on_workers, on_local_fibers, panics, depths, ping_pong,
        meanwhile_on_worker [UPCALL_WORKERS = "1"],
        meanwhile_on_small_stacks,
    }
    drops {
        ended_by_c, ended_at_any_moment, ended_in_a_wait, aborted, aborted_at_any_moment, thread_exit,
        process_exit => ended_at_exit(),
        exit_in_fiber => Outcome::Prints("exit in a fiber"),
    }
    blocked {
        begins [UPCALL_WORKERS = "2"],
        kept_by_stuck_worker [UPCALL_WORKERS = "2"],
        extra_workers_go [UPCALL_WORKERS = "2"],
        masks_and_names [UPCALL_WORKERS = "2"],
    }
    callbacks {
        rightly, late_and_twice, wrong_data, inside_itself, destroyed_inside, destroyed_meanwhile, raced, bombs,
        lent_by_rust, scope_with_jumps, waits, accounts, forked, key_destructors,
        scope_ends_too_soon => Outcome::Aborts("ended before a call of it returned, and what that borrows would be gone"),
        dereferenced => Outcome::SegfaultsSilently,
        at_exit => Outcome::Prints("called at exit"),
    }
    shutdown {
        nothing_started, that_finish, that_do_not_finish, that_are_stuck, at_once, from_two_threads, from_fibers,
    }
}

cases! {
    forks {
        nothing_started, workers_started, fibers_of_the_parent, in_nested_upcalls, on_coroutine, on_pthread, on_worker,
        local_runtime, under_load, while_fibers_look, generations,
    }
    fork_handlers {
        first_upcalls, first_of_a_thread, first_waits, first_waits_of_a_thread, only_in_children, later,
        later_of_a_thread, joins, suspended_coroutines, nested, nested_children_go_on, by_another_thread, in_upcall,
        on_worker, on_fiber, under_load, waiting_under_load, fails, thread_ends,
    }
    signals {
        on_alternate_stack, nested, on_own_stack, idle_and_in_c, new_thread,
    }
    go_signals {
        masks, mask_in_callbacks, raised, children, profiler, interrupted_calls, broken_pipes, forwarded, upcalls_in_handlers,
        new_threads,
        overflow_on_fiber => Outcome::Prints("the host's handler has seen the overflow"),
    }
    stepped {
        panic, message, on_own_stack, on_coroutine, on_signal_stack,
    }
    jumped {
        out_of_waits, out_of_locals, out_of_sleeps, out_of_polls_on_fibers, out_of_fibers, out_of_runtimes,
    }
    preempted {
        on_own_stack, on_undescribed, on_registered,
    }
    detach {
        not_in_use, inside_calls, unseen, suspended, fibers, on_others_threads, locals, key_destructors, threads,
        signal_handler, left_by_longjmp, reports, little_stack, forked,
    }
    remaining {
        own_stack, coroutines, inside_calls, little_stack,
        repeated_on_own_stack => Outcome::Prints("1000000 questions under strict seccomp"),
        repeated_on_coroutine => Outcome::Prints("1000000 questions under strict seccomp"),
    }
    longjmp {
        on_main, on_pthread, on_registered, suspended_are_kept, of_fibers, without_upcall,
        undescribed [UPCALL_OPEN_UPCALLS = "1000"],
    }
}

/// The exit of a process whose main thread has a runtime: musl destroys no thread-local then, and
/// Windows does after all handlers of the exit.
fn ended_at_exit() -> Outcome {
    if program::on_musl() || program::on_windows() {
        Outcome::Success
    } else {
        Outcome::Prints("ended at exit")
    }
}

/// The texts on stderr, in order, after a panic without an enclosing downcall or a value for C.
const EXPORTED_PANIC: [&str; 5] = [
    "panicked at",
    "no () to return",
    "upcall: guest::exported::guest_exported_panic panicked",
    "no downcall encloses it",
    "(on_panic): no () to return; the process is stopped",
];

#[test]
fn overflow_is_stopped_by_mprotect_too() {
    let variables = [("UPCALL_GUARD_PAGES", "mprotect")];
    let stopped = Outcome::Prints("overflow stopped by the guard");
    Program::built("guard", Link::Static).run("overflow", &variables, stopped);
}

#[test]
fn foreign_stacks_are_reported_once_a_thread() {
    let variables = [("UPCALL_FOREIGN_STACKS", "report")];
    let reported = if cfg!(stackbounds_no_query) {
        Outcome::Success // no stack is known, so none counts as foreign
    } else {
        Outcome::SaysOnce("upcall from an undescribed stack: SP")
    };
    Program::built("guard", Link::Static).run("foreign_served", &variables, reported);
}

#[test]
fn a_variable_that_means_nothing_is_named_and_ignored() {
    let variables = [("UPCALL_MIN_STACK", "plenty")];
    let named = Outcome::SaysOnce("UPCALL_MIN_STACK=\"plenty\" is ignored: it takes a number of bytes");
    Program::built("guard", Link::Static).run("foreign_served", &variables, named);
}

#[test]
fn an_export_that_is_refused_and_names_no_value_stops_the_process() {
    let outcome = if cfg!(stackbounds_no_query) {
        Outcome::Success // the bounds of the stack are unknown, so nothing is refused
    } else {
        Outcome::AbortsSaying([
            "upcall: guest::exported::guest_exported_on_caller was refused",
            "names no value for C (on_panic)",
            "the upcall must run on the caller's stack",
            "of the 32768 that it needs",
            "the process is stopped",
        ])
    };
    for &link in program::links_of("exported") {
        Program::built("exported", link).run("is_refused", &[], outcome);
    }
}
