//! What the calls of one connection's functions see: the stack that C is on, and the stack that Rust gets.

use std::cell::Cell;

use stackbounds::{Accuracy, StackBounds, stack_pointer};

/// The bytes of stack that every upcall has at least.
pub const MIN_STACK: usize = 128 << 10;
/// What the frames between the upcall and its body may take of it.
const FRAMES: usize = 4 << 10;

/// Watches calls.
pub struct Probe {
    /// The stack pointer before the first call.
    start: usize,
    seen: Cell<Seen>,
}

/// What a probe has seen.
#[derive(Clone, Copy)]
pub struct Seen {
    /// The number of calls.
    pub calls: usize,
    /// Calls that ran elsewhere than the rule says, or with less stack than was promised.
    pub astray: usize,
    /// C's stack at the last call.
    pub c_stack: StackBounds,
    /// Rust's stack at the last call.
    pub rust_stack: StackBounds,
    /// Whether that was the thread's own.
    pub own: bool,
    /// How many bytes deep C's stack was at the deepest call.
    pub deepest: usize,
    /// The least stack that a call had left.
    pub least_room: usize,
}

impl Probe {
    /// A probe that counts depth from here.
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

    /// Before the upcall, on C's stack: its bounds, as far as they are known.
    pub fn at_c(&self) -> StackBounds {
        let mut seen = self.seen.get();
        seen.deepest = seen.deepest.max(self.start.saturating_sub(stack_pointer()));
        self.seen.set(seen);
        stackbounds::current()
    }

    /// In the upcall, on Rust's stack.
    pub fn in_rust(&self, c_stack: StackBounds) {
        let mut seen = self.seen.get();
        let room = stackbounds::remaining().unwrap_or(0);
        seen.calls += 1;
        seen.c_stack = c_stack;
        seen.rust_stack = stackbounds::current();
        seen.own = stackbounds::thread().is_some_and(|own| own.contains(stack_pointer()));
        seen.least_room = seen.least_room.min(room);
        // An estimate carries no promise: in place needs exact bounds.
        let in_place = c_stack.accuracy() == Accuracy::Exact;
        if (seen.rust_stack == c_stack) != in_place || room + FRAMES < MIN_STACK {
            seen.astray += 1;
        }
        self.seen.set(seen);
    }

    /// All that was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.get()
    }
}
