//! Stacks that overflow, and stacks that hosts register, in C programs.

#[macro_use]
#[allow(dead_code)] // it is what all tests of C programs share
mod program;

use program::{Link, Outcome, Program};

/// What the host's handler says, having found the report and its arguments to be right.
const HAD_ITS_TURN: Outcome = Outcome::Prints("the host's handler had its turn");
const REPORTED: Outcome = Outcome::Segfaults("a pooled stack that an upcall runs on");

cases! {
    overflow {
        pooled => HAD_ITS_TURN,
        fiber => HAD_ITS_TURN,
        further_stack => HAD_ITS_TURN,
        on_main => HAD_ITS_TURN,
        on_pthread => HAD_ITS_TURN,
        registered => HAD_ITS_TURN,
        registered_without_name => HAD_ITS_TURN,
        registered_unattached => HAD_ITS_TURN,
        chain => HAD_ITS_TURN,
        long_chain => HAD_ITS_TURN,
        by_default => REPORTED,
        without_install => Outcome::SegfaultsSilently,
        elsewhere => HAD_ITS_TURN,
        elsewhere_by_default => Outcome::SegfaultsSilently,
        elsewhere_unattached => HAD_ITS_TURN,
        guard_touched => HAD_ITS_TURN,
        fault_in_report => HAD_ITS_TURN,
        handler_after => Outcome::Prints("the host's handler was first"),
        handler_after_alone => HAD_ITS_TURN,
        handler_without_siginfo => Outcome::Prints("the plain handler had its turn"),
        handler_for_once => Outcome::Segfaults("called once"),
        recovers, recovers_with_nodefer,
        sent_is_ignored => REPORTED,
        sent_by_default => Outcome::SegfaultsSilently,
        stderr_closed => HAD_ITS_TURN,
        two_at_once => Outcome::Prints("both were reported"),
        no_alternate_stack => Outcome::SegfaultsSilently,
        alternate_stack_later => REPORTED,
        alternate_stacks,
    }
    registered {
        errors, bounds, in_place, ten_thousand, suspended, suspended_in_plain_call, suspended_elsewhere, suspended_under_fiber, by_itself,
        in_fibers, of_fibers,
    }
}

#[test]
fn overflows_are_reported_with_mprotect_too() {
    let variables = [("UPCALL_GUARD_PAGES", "mprotect")];
    Program::built("overflow", Link::Static).run("by_default", &variables, REPORTED);
}
