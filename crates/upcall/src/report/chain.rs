//! The chain of open calls that lead to where a thread is, the innermost first, without allocating: for the handler of a fault.
//!
//! On one stack, calls are nested: the nearest one above SP is the innermost. A downcall leads to the Rust code that made it, wherever that is; a
//! pooled stack, to the system stack that it was entered from, or if it is a fiber's further stack, to the one before. Who resumed a coroutine is not known, but the thread's own stack is beneath it.

use std::sync::atomic::Ordering::Relaxed;

use super::snapshot::{NEAR, StackKind};
use crate::function::Function;
use crate::stack::control_in_handler;
use crate::thread::{Hot, OpenCall, Record, Upcall, UpcallCell};
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

/// A call on the way.
#[derive(Clone, Copy)]
enum Nearest<'a> {
    Upcall(Option<Function>),
    Downcall(&'a OpenCall),
}

/// The place of a call on its stack: its SP, and which is inside of another with the same SP.
type Place = (usize, u8);

/// Inside an upcall that was entered with the same SP, because it belongs to it.
const IN_UPCALL: u8 = 0;
const UPCALL: u8 = 1;
/// Outside of it.
const AROUND_UPCALL: u8 = 2;

/// Stacks without a call that are passed on the way to the next one.
const MOST_STACKS: usize = 1000;

/// The walk along it.
pub(super) struct Chain<'a> {
    hot: &'a Hot,
    record: &'a Record,
    /// Where the walk is: calls on this stack beyond this place come next.
    at: Place,
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
        Self { hot, record, at: (sp, IN_UPCALL) }
    }

    /// Where C began that a call of this thread calls.
    fn place_of(&self, call: &OpenCall) -> Place {
        let c_sp =
            call.c_sp(|rust_sp| Some(control_in_handler(rust_sp, self.hot.mark())?.system_sp.load(Relaxed)));
        let upcall_sp = call.upcall.sp();
        // A compiler may make one frame of an upcall and its downcall.
        let inside = upcall_sp != 0 && upcall_sp <= c_sp && c_sp < stack_of(self.hot, upcall_sp).1;
        if inside { (upcall_sp, IN_UPCALL) } else { (c_sp, AROUND_UPCALL) }
    }

    /// The nearest call on this stack.
    fn nearest(&self, high: usize) -> Option<(Place, Nearest<'a>)> {
        let beyond = |place: Place| place > self.at && place.0 < high;
        let upcall = |cell: &UpcallCell| {
            let Upcall { sp, function } = cell.get();
            Some(((sp, UPCALL), Nearest::Upcall(function))).filter(|&(place, _)| sp != 0 && beyond(place))
        };
        let mut nearest = upcall(&self.hot.upcall);
        for call in self.record.open_calls() {
            let downcall =
                Some((self.place_of(call), Nearest::Downcall(call))).filter(|&(place, _)| beyond(place));
            for found in [upcall(&call.upcall), downcall].into_iter().flatten() {
                if nearest.is_none_or(|(nearest, _)| found.0 < nearest) {
                    nearest = Some(found);
                }
            }
        }
        nearest
    }
}

impl Iterator for Chain<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // Bounded: what it reads may be what made the fault.
        for _ in 0..MOST_STACKS {
            let (kind, high) = stack_of(self.hot, self.at.0);
            if let Some((place, nearest)) = self.nearest(high) {
                self.at = place;
                let call = match nearest {
                    Nearest::Upcall(function) => return Some(Step::Upcall(place.0, function)),
                    Nearest::Downcall(call) => call,
                };
                // If the Rust code that made it is on another stack, all of that is yet to come.
                let end = stack_of(self.hot, place.0).1;
                if !(place.0..end).contains(&call.rust_sp()) {
                    self.at = (call.rust_sp(), IN_UPCALL);
                }
                return Some(Step::Downcall(place.0));
            }
            match kind {
                StackKind::Own => return None,
                StackKind::Pooled => {
                    let stack = control_in_handler(self.at.0, self.hot.mark())?;
                    self.at = match stack.fiber().and_then(|fiber| fiber.left_for(stack)) {
                        Some(stack) => (stack.low.get(), IN_UPCALL),
                        // A downcall to there, from this stack, is behind.
                        None => (stack.system_sp.load(Relaxed), AROUND_UPCALL),
                    };
                }
                StackKind::Registered | StackKind::Undescribed => {
                    self.at = (self.hot.own_stack()?.0, IN_UPCALL);
                    return Some(Step::ToOwnStack);
                }
            }
        }
        None
    }
}
