//! Stacks smaller than the system says, from the start or later.

#![allow(dead_code, reason = "the other test files use the rest of the module")]

#[macro_use]
#[allow(dead_code, unused_macros, reason = "each test file uses a part")]
mod program;

use program::{Outcome, Program};

cases! {
    room {
        limit_lowered, limit_lowered_before, limit_raised, limit_lifted_and_set, limit_falls_below, half_protected,
        half_protected_before, half_advised, page_advised, page_protected, zones_at_the_end, margin,
    }
}

#[test]
fn the_margin_is_a_setting() {
    for link in program::links_of("room") {
        Program::built("room", *link).run("margin", &[("UPCALL_STACK_MARGIN", "0")], Outcome::Success);
    }
}
