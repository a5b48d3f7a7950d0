//! The `UPCALL_*` variables: they override what the program sets.

use std::time::Duration;

use super::{Config, ForeignStacks, GuardPages, MIN_STACK, Reports};
use crate::messages::warn;

impl Config {
    /// Overrides the settings by the variables.
    pub(super) fn with_environment(mut self) -> Self {
        let bytes = |s: &str| s.parse().ok().filter(|bytes| MIN_STACK.contains(bytes));
        variable(
            "UPCALL_MIN_STACK",
            "a number of bytes from 16384 to 1073741824",
            bytes,
            &mut self.min_stack,
        );
        variable(
            "UPCALL_FIBER_STACK",
            "a number of bytes from 16384 to 1073741824",
            bytes,
            &mut self.fiber_stack,
        );
        variable("UPCALL_STACK_MARGIN", "a number of bytes", |s| s.parse().ok(), &mut self.stack_margin);
        variable("UPCALL_WORKERS", "a number of threads", |s| s.parse().ok(), &mut self.workers);
        #[cfg(feature = "runtime")]
        variable("UPCALL_RUNNING_TASKS", "a number of tasks", |s| s.parse().ok(), &mut self.running_tasks);
        let milliseconds = |s: &str| Some(Some(Duration::from_millis(s.parse().ok()?)));
        variable("UPCALL_WAIT_WARNING", "a number of milliseconds", milliseconds, &mut self.wait_warning);
        let policy = |s: &str| match s {
            "allow" => Some(ForeignStacks::Allow),
            "report" => Some(ForeignStacks::Report),
            "refuse" => Some(ForeignStacks::Refuse),
            _ => None,
        };
        variable("UPCALL_FOREIGN_STACKS", "allow, report or refuse", policy, &mut self.foreign_stacks);
        variable("UPCALL_OPEN_UPCALLS", "a number of upcalls", |s| s.parse().ok(), &mut self.open_upcalls);
        variable("UPCALL_IDLE_STACKS", "a number of stacks", |s| s.parse().ok(), &mut self.idle_stacks);
        let guard = |s: &str| match s {
            "auto" => Some(GuardPages::Auto),
            "mprotect" => Some(GuardPages::Mprotect),
            _ => None,
        };
        variable("UPCALL_GUARD_PAGES", "auto or mprotect", guard, &mut self.guard_pages);
        let reports = |s: &str| match s {
            "faults" => Some(Reports::Faults),
            "overflows" => Some(Reports::Overflows),
            _ => None,
        };
        #[cfg(feature = "tokio")]
        {
            let makes = |s: &str| match s {
                "make" => Some(true),
                "none" => Some(false),
                _ => None,
            };
            variable("UPCALL_TOKIO_RUNTIME", "make or none", makes, &mut self.makes_tokio_runtime);
        }
        variable("UPCALL_REPORTS", "faults or overflows", reports, &mut self.reports);
        self
    }
}

/// Reads one variable into `setting`; reports an invalid value, and ignores it.
fn variable<T>(name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>, setting: &mut T) {
    let Some(value) = std::env::var_os(name) else { return };
    match value.to_str().and_then(parse) {
        Some(value) => *setting = value,
        None => warn(format_args!("{name}={value:?} is ignored: it takes {expected}")),
    }
}
