//! C++ exceptions on fibers.

#[macro_use]
#[allow(dead_code, reason = "each test file uses a part")]
mod program;

use program::{Outcome, Program};

/// Declares a test for each case of a C++ program. Does nothing if the program cannot be built
/// here.
macro_rules! cpp_cases {
    ($program:ident { $($case:ident,)* }) => {
        mod $program {
            use super::*;
            $( #[test] fn $case() {
                if program::can_build(stringify!($program)) {
                    for &link in program::links_of(stringify!($program)) {
                        Program::built(stringify!($program), link).run(stringify!($case), &[], Outcome::Success);
                    }
                }
            } )*
        }
    };
}

cpp_cases! {
    caught {
        in_handlers, in_destructors, in_both, by_others, by_fibers, cancelled, on_workers, on_threads,
    }
}

cases! {
    late_cpp { loaded_late, loaded_by_fiber, on_other_threads, }
}
