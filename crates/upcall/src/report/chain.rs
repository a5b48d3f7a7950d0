//! The chain of open calls that lead to where a thread is, the innermost first, without allocating: for the handler of a fault.
//!
//! On one stack, the calls that are further out are those that began above, and of these the newest is the innermost. A downcall leads to the Rust code
//! that made it, wherever that is, and so to the upcall which that belongs to. A pooled stack leads to the system stack that it was entered from, or if it
//! is a fiber's further stack, to the one before. Who resumed a coroutine is not known, but the thread's own stack is beneath it.

use std::sync::atomic::Ordering::Relaxed;

use super::snapshot::{NEAR, StackKind};
use crate::function::Function;
use crate::stack::control_of_thread_at;
use crate::thread::{Hot, OpenCall, Record, Upcall};
use stackbounds::Kind;

/// One step outwards.
pub(super) enum Step {
    /// To where C made an upcall, and what it called.
    Upcall(usize, Option<Function>),
    /// To where C code began that Rust called.
    Downcall(usize),
    /// To the thread's own stack, from a coroutine's.
    ToOwnStack,
}

/// Stacks without a call that are passed on the way to the next one.
const MOST_STACKS: usize = 1000;

/// The walk along it.
pub(super) struct Chain<'a> {
    hot: &'a Hot,
    record: &'a Record,
    /// Where the walk is.
    at: usize,
    /// The number of the last downcall: those that are further out were made before.
    before: usize,
    /// The upcall that the Rust code belongs to where the walk is, if it has not come to that.
    upcall: Upcall,
}

/// The kind of stack that `sp` is on, and where that ends.
pub(super) fn stack_of(hot: &Hot, sp: usize) -> (StackKind, usize) {
    if let Some((_, high)) = hot.own_stack().filter(|_| hot.owns(sp)) {
        return (StackKind::Own, high);
    }
    let around = stackbounds::described(sp);
    match around.kind {
        Kind::Slot => (StackKind::Pooled, around.high),
        Kind::Stack => (StackKind::Registered, around.high),
        Kind::Gap => (StackKind::Undescribed, around.high.min(sp.saturating_add(NEAR))),
    }
}

impl<'a> Chain<'a> {
    /// From `sp` outwards.
    pub fn from(hot: &'a Hot, record: &'a Record, sp: usize) -> Self {
        Self { hot, record, at: sp, before: usize::MAX, upcall: hot.upcall.get() }
    }

    /// The next call on this stack, which ends at `high`.
    fn next_until(&mut self, high: usize) -> Option<Step> {
        let (range, mark) = (self.at..high, self.hot.mark());
        let beyond = |call: &&OpenCall| call.serial() < self.before && range.contains(&call.own_c_sp(mark));
        let call = self.record.open_calls().filter(beyond).max_by_key(|call| call.serial());
        let Upcall { sp, function } = self.upcall;
        match call {
            // Its own downcalls are inside of an upcall, all others around it.
            Some(call) if call.upcall.sp() == sp || !range.contains(&sp) => {
                let c_sp = call.own_c_sp(mark);
                (self.at, self.before, self.upcall) = (call.rust_sp(), call.serial(), call.upcall.get());
                Some(Step::Downcall(c_sp))
            }
            _ if range.contains(&sp) => {
                (self.at, self.upcall.sp) = (sp, 0);
                Some(Step::Upcall(sp, function))
            }
            _ => None,
        }
    }
}

impl Iterator for Chain<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // Bounded: what it reads may be what made the fault.
        for _ in 0..MOST_STACKS {
            let (kind, high) = stack_of(self.hot, self.at);
            if let Some(step) = self.next_until(high) {
                return Some(step);
            }
            self.at = match kind {
                StackKind::Own => return None,
                StackKind::Pooled => {
                    let stack = control_of_thread_at(self.at, self.hot.mark())?;
                    match stack.fiber().and_then(|fiber| fiber.left_for(stack)) {
                        Some(stack) => stack.low.get(),
                        None => stack.system_sp.load(Relaxed),
                    }
                }
                StackKind::Registered | StackKind::Undescribed => {
                    self.at = self.hot.own_stack()?.0;
                    return Some(Step::ToOwnStack);
                }
            }
        }
        None
    }
}
