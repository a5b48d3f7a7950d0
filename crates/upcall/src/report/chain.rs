//! The chain of open calls from a thread's position outwards, innermost first.
//!
//! It is for the handler of a fault, so it allocates nothing. The walk takes these steps:
//! - On one stack, calls further out began at higher addresses. Among these, the newest is the
//!   innermost.
//! - A downcall leads to the Rust code that made it, on any stack, and to the upcall of this code.
//! - A pooled stack leads to the system stack from which it was entered.
//! - An extension stack of a fiber leads to the fiber's stack before it.
//! - The stack on which a fiber began leads to the fiber's resumer, and to the upcall of the
//!   resumer's code.
//! - A coroutine of the host leads to the thread's own stack, which is beneath it. Its resumer is
//!   not known.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use super::snapshot::{StackKind, stack_of};
use crate::function::Function;
use crate::stack::header_of_thread_at;
use crate::sys;
use crate::thread::{CurrentUpcall, OpenCall, Record, ThreadState};

/// One step outwards, with SP at its new position.
enum Step {
    /// To the C code that made an upcall, and the Rust function called.
    CurrentUpcall(usize, Option<Function>),
    /// To the first frame of C code, called by Rust in a downcall.
    Downcall(usize),
    /// To the thread's own stack, from a coroutine's.
    ToOwnStack,
}

/// The limit on consecutive stacks without a call.
///
/// It ends a walk over corrupt data.
const MOST_STACKS: usize = 1000;

/// A walk along the chain of open calls.
struct Chain<'a> {
    thread: &'a ThreadState,
    record: &'a Record,
    /// SP at the walk's position.
    at: usize,
    /// The number of the last downcall of the walk. Those further out are older, with smaller
    /// numbers.
    before: usize,
    /// The upcall of the Rust code at the walk's position, if the walk has not reached it.
    upcall: CurrentUpcall,
}

impl<'a> Chain<'a> {
    /// Begins a walk at `sp`.
    fn from(thread: &'a ThreadState, record: &'a Record, sp: usize) -> Self {
        Self { thread, record, at: sp, before: usize::MAX, upcall: thread.upcall.get() }
    }

    /// The next call on the current stack, whose high end is `high`.
    fn next_until(&mut self, high: usize) -> Option<Step> {
        let (range, id) = (self.at..high, self.thread.id());
        let beyond = |call: &&OpenCall| call.serial() < self.before && range.contains(&call.own_c_sp(id));
        let call = self.record.open_calls().filter(beyond).max_by_key(|call| call.serial());
        let CurrentUpcall { sp, function } = self.upcall;
        match call {
            // Downcalls of the current upcall are further in than the upcall; all others, further
            // out.
            Some(call) if call.upcall.sp() == sp || !range.contains(&sp) => {
                let c_sp = call.own_c_sp(id);
                (self.at, self.before, self.upcall) = (call.rust_sp(), call.serial(), call.upcall.get());
                Some(Step::Downcall(c_sp))
            }
            _ if range.contains(&sp) => {
                (self.at, self.upcall.sp) = (sp, 0);
                Some(Step::CurrentUpcall(sp, function))
            }
            _ => None,
        }
    }
}

impl Iterator for Chain<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // The loop is bounded, since the data it reads may have caused the fault.
        for _ in 0..MOST_STACKS {
            let (kind, high) = stack_of(self.thread.own_stack(), self.at);
            if let Some(step) = self.next_until(high) {
                return Some(step);
            }
            self.at = match kind {
                StackKind::Own => return None,
                StackKind::Pooled => {
                    let stack = header_of_thread_at(self.at, self.thread.id())?;
                    match stack.fiber().map(|fiber| fiber.system_stack_of_extension(stack)) {
                        Some(Some(stack)) => stack.low.get(),
                        Some(None) => {
                            self.upcall = stack.upcall.get();
                            stack.system_sp.load(Relaxed)
                        }
                        None => stack.system_sp.load(Relaxed),
                    }
                }
                StackKind::Registered | StackKind::Undescribed => {
                    self.at = self.thread.own_stack()?.0;
                    return Some(Step::ToOwnStack);
                }
            }
        }
        None
    }
}

/// The number of calls in a report.
const SHOWN: usize = 24;

/// The open calls from the calling thread's position outwards, in words.
pub(super) struct Calls<'a> {
    /// The calling thread's record; `None` if it is not attached.
    pub record: Option<&'a Record>,
    /// The thread's position; `None` if it is not known. Then the list begins at the innermost
    /// upcall.
    pub from: Option<usize>,
}

impl fmt::Display for Calls<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(record) = self.record else {
            return writeln!(out, "upcall: the thread is not attached: it has made no call");
        };
        let thread = state_of(record);
        let kind = |sp| match stack_of(thread.own_stack(), sp).0 {
            StackKind::Own => "the thread's own stack",
            StackKind::Pooled => "a pooled stack",
            StackKind::Registered => "a registered stack",
            StackKind::Undescribed => "an undescribed stack",
        };
        let innermost = || match (thread.upcall.sp(), thread.own_stack()) {
            (0, Some((low, _))) => low,
            (sp, _) => sp,
        };
        let mut chain = Chain::from(thread, record, self.from.unwrap_or_else(innermost)).peekable();
        if chain.peek().is_none() {
            return writeln!(out, "upcall: no call is open there");
        }
        writeln!(out, "upcall: open calls, the innermost first:")?;
        for step in chain.by_ref().take(SHOWN) {
            match step {
                Step::CurrentUpcall(sp, Some(function)) => {
                    writeln!(out, "upcall:   C → Rust, called from {}, SP {sp:#x}: {function:.256}", kind(sp))
                }
                Step::CurrentUpcall(sp, None) => {
                    writeln!(out, "upcall:   C → Rust, called from {}, SP {sp:#x}", kind(sp))
                }
                Step::Downcall(sp) => writeln!(out, "upcall:   Rust → C, C runs on {}, SP {sp:#x}", kind(sp)),
                Step::ToOwnStack => {
                    writeln!(out, "upcall:   (a coroutine; beneath it, on the thread's own stack:)")
                }
            }?;
        }
        if chain.next().is_some() {
            writeln!(
                out,
                "upcall:   … and so on: {} downcalls of the thread are open",
                record.open_calls().count()
            )?;
        }
        Ok(())
    }
}

/// The calling thread, in words.
pub(super) struct ThisThread;

impl fmt::Display for ThisThread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; 16];
        let name = sys::own_thread_name(&mut buffer).unwrap_or("unnamed");
        write!(out, "thread {:#x} ({name})", sys::os_thread_id())
    }
}

/// The `ThreadState` of the calling thread, found through its record.
pub(super) fn state_of(record: &Record) -> &ThreadState {
    // SAFETY: the record is the calling thread's, and the `ThreadState` lives as long as its
    // thread.
    unsafe { &*record.thread }
}
