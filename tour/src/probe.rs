//! Observations of a connection's calls: the stack of C, and the stack of Rust.

use std::cell::Cell;

use stackbounds::{Accuracy, StackBounds, stack_pointer};

/// The least bytes of stack for every upcall.
pub const MIN_STACK: usize = 128 << 10;
/// The bytes of it that the frames between the upcall and its body may use.
const FRAMES: usize = 4 << 10;

/// Watches calls of SQL functions.
pub struct Probe {
    /// The stack pointer before the first call.
    start: usize,
    seen: Cell<Seen>,
}

/// The observations of a probe.
#[derive(Clone, Copy)]
pub struct Seen {
    /// The number of calls.
    pub calls: usize,
    /// The number of calls on a wrong stack, or with less stack than promised.
    pub astray: usize,
    /// C's stack at the last call.
    pub c_stack: StackBounds,
    /// Rust's stack at the last call.
    pub rust_stack: StackBounds,
    /// Whether Rust's stack was the thread's own.
    pub own: bool,
    /// The depth of C's stack at the deepest call, in bytes.
    pub deepest: usize,
    /// The least stack remaining in a call, in bytes.
    pub least_room: usize,
}

impl Probe {
    /// Makes a probe that measures depth from here.
    pub fn new() -> Self {
        let here = stackbounds::current();
        let seen = Seen {
            calls: 0,
            astray: 0,
            c_stack: here,
            rust_stack: here,
            own: false,
            deepest: 0,
            least_room: usize::MAX,
        };
        Self { start: stack_pointer(), seen: Cell::new(seen) }
    }

    /// Records the depth on C's stack before the upcall. Returns the stack's bounds, as far as they
    /// are known.
    pub fn at_c(&self) -> StackBounds {
        let mut seen = self.seen.get();
        seen.deepest = seen.deepest.max(self.start.saturating_sub(stack_pointer()));
        self.seen.set(seen);
        stackbounds::current()
    }

    /// Records Rust's stack inside the upcall, and compares it with the rule.
    pub fn in_rust(&self, c_stack: StackBounds) {
        let mut seen = self.seen.get();
        let room = stackbounds::remaining().unwrap_or(0);
        seen.calls += 1;
        seen.c_stack = c_stack;
        seen.rust_stack = stackbounds::current();
        seen.own = stackbounds::thread().is_some_and(|own| own.contains(stack_pointer()));
        seen.least_room = seen.least_room.min(room);
        // An estimate carries no promise: only with exact bounds does the upcall run in place.
        let in_place = c_stack.accuracy() == Accuracy::Exact;
        if (seen.rust_stack == c_stack) != in_place || room + FRAMES < MIN_STACK {
            seen.astray += 1;
        }
        self.seen.set(seen);
    }

    /// All observations so far.
    pub fn seen(&self) -> Seen {
        self.seen.get()
    }
}
