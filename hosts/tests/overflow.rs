//! Stack overflows, and stacks registered by hosts, in C programs.

#[macro_use]
#[allow(dead_code)] // shared by all tests of C programs
mod program;

use program::{Link, Outcome, Program};

/// Printed by the host's handler after checking the report and its own arguments.
const HAD_ITS_TURN: Outcome = Outcome::Prints("the host's handler had its turn");
const PLAIN_HAD_ITS_TURN: Outcome = Outcome::Prints("the plain handler had its turn");
const NO_CALL: &str = "upcall: no call is open there";
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
        elsewhere_by_default => Outcome::Segfaults(NO_CALL),
        elsewhere_to_the_host [UPCALL_REPORTS = "overflows"] => HAD_ITS_TURN,
        fault_in_c => HAD_ITS_TURN,
        fault_in_rust => HAD_ITS_TURN,
        fault_on_fiber => HAD_ITS_TURN,
        fault_on_coroutine => HAD_ITS_TURN,
        aborted => PLAIN_HAD_ITS_TURN,
        aborted_by_default => Outcome::Aborts("upcall: SIGABRT (abort) on thread "),
        aborted_by_handler => PLAIN_HAD_ITS_TURN,
        faults_are_its_way => Outcome::SaysOnce("upcall: the process goes on after faults, so no more are reported"),
        elsewhere_unattached => HAD_ITS_TURN,
        guard_touched => HAD_ITS_TURN,
        fault_in_report => HAD_ITS_TURN,
        handler_after => Outcome::Prints("the host's handler was first"),
        handler_after_alone => HAD_ITS_TURN,
        handler_without_siginfo => PLAIN_HAD_ITS_TURN,
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

/// Faults with a signal on this architecture only.
#[cfg(target_arch = "x86_64")]
mod arithmetic {
    use super::*;

    cases! {
        overflow {
            division_by_zero => PLAIN_HAD_ITS_TURN,
            illegal_instruction => PLAIN_HAD_ITS_TURN,
        }
    }
}

#[test]
fn overflows_are_reported_with_mprotect_too() {
    let variables = [("UPCALL_GUARD_PAGES", "mprotect")];
    Program::built("overflow", Link::Static).run("by_default", &variables, REPORTED);
}
