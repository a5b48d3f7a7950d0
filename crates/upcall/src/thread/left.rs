//! Calls that C has left by `longjmp`, and their stacks: found, as far as that is certain, and used again.
//!
//! Where code runs at SP on a stack whose bounds are exact, all that was below SP on that stack is gone; and whatever was there when a later downcall
//! began further up. So are downcalls whose C code had begun there, the upcalls on pooled stacks that they would have returned to, and upcalls on pooled stacks
//! that were made from there. On a stack that nobody described, a call below SP may be one of another stack's, which is suspended. Rule:
//! **whatever might still be live is never freed.**
//!
//! A host may copy its threads' stacks, so that what was gone is there again. Nothing tells such a host from one that calls `longjmp`, until a call returns
//! that seemed left; from then on the own stack of that thread proves nothing. So nobody looks while there are few, and a pooled stack that
//! seems left is used again only when [`KEPT`] others seem left, too. The place of a downcall may be used again at once: the call that finds
//! its place gone goes on without, and a panic that was to be raised there is told to C only.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::StackBounds;

use super::{Hot, OpenCall, Payload, Record};
use crate::quiet::quietly;
use crate::stack::pool::{self, Purpose};
use crate::stack::{Control, control_of_thread_at, service};

/// From so many downcalls on, and stacks for upcalls, it is worth looking.
pub(super) const MANY_CALLS: usize = 1024;
pub(super) const MANY_STACKS: usize = 256;
/// Stacks that seem left are kept until there are more than so many.
const KEPT: usize = 256;

/// What a look found.
#[derive(Default)]
pub(crate) struct Found {
    /// Downcalls that were left, whose places are free now.
    pub calls: usize,
    /// Upcalls from undescribed stacks that are open, as far as is known.
    pub undescribed: usize,
}

/// Looks for what was left, for a caller at `sp`; makes spares of the stacks that may be used again.
#[cold]
#[inline(never)]
pub(crate) fn reclaim(hot: &'static Hot, sp: usize) -> Found {
    let Some(record) = hot.record() else { return Found::default() };
    let (payloads, undescribed) = service::run(|| look(hot, record, sp, KEPT));
    let calls = payloads.len();
    drop_all(payloads);
    Found { calls, undescribed }
}

/// At the thread's exit: on its own stack, there is nobody left who could come back. Returns what would have been raised.
pub(super) fn reclaim_all(hot: &'static Hot, record: &Record, sp: usize) -> Payloads {
    if hot.owns(sp) { look(hot, record, sp, 0).0 } else { Vec::new() }
}

/// What would have been raised at the calls that were left.
pub(super) type Payloads = Vec<Option<Payload>>;

/// Drops that, on the caller's stack: these are anybody's destructors.
pub(super) fn drop_all(payloads: Payloads) {
    payloads.into_iter().flatten().for_each(|payload| quietly(|| drop(payload)));
}

fn look(hot: &Hot, record: &Record, sp: usize, kept: usize) -> (Payloads, usize) {
    let undescribed = upcalls(hot, record, sp);
    let payloads = calls(hot, record, sp);
    use_again(hot, record, kept);
    (payloads, undescribed)
}

/// The stack that `sp` is on, if it is certain that what is below SP there is gone.
fn certain(hot: &Hot, sp: usize) -> Option<StackBounds> {
    let stack = stackbounds::at(sp);
    (stack.is_exact() && !(hot.calls.copies() && hot.owns(sp))).then_some(stack)
}

/// How far up each exactly known stack code has been since: what had begun below is gone.
struct Highest<'a> {
    hot: &'a Hot,
    /// By the stack's lowest address.
    of_stacks: BTreeMap<usize, usize>,
}

impl Highest<'_> {
    /// Notes that code was at `sp`; says whether later code has been further up.
    fn rise_to(&mut self, sp: usize) -> bool {
        let Some(stack) = certain(self.hot, sp) else { return false };
        let highest = self.of_stacks.entry(stack.low()).or_insert(0);
        let was_left = sp <= *highest;
        *highest = sp.max(*highest);
        was_left
    }
}

/// Takes the places of the downcalls that were left, and what was to be raised there; and marks the stacks of their upcalls.
fn calls(hot: &Hot, record: &Record, sp: usize) -> Payloads {
    let mut highest = Highest { hot, of_stacks: BTreeMap::new() };
    highest.rise_to(sp);
    let on_stack = |sp| control_of_thread_at(sp, hot.mark());
    // Stacks on which nothing is left but calls of C code there: idle ones, and those that something runs on, or will return to.
    let mut stay = idle(hot);
    stay.extend(on_stack(sp).map(Control::base));
    let mut open: Vec<&OpenCall> = record.open_calls().collect();
    open.sort_unstable_by_key(|call| Reverse(call.serial()));
    let mut payloads = Vec::new();
    for call in open {
        let stack = on_stack(call.rust_sp());
        let c_sp = call.c_sp(|_| Some(stack?.system_sp.load(Relaxed)));
        let was_left = highest.rise_to(c_sp);
        if !was_left && !stack.is_some_and(|stack| stack.seems_left.get()) {
            stay.extend(stack.map(Control::base));
            continue;
        }
        payloads.push(hot.calls.reclaim(call));
        // Whatever is on this stack now, C that it calls on another begins where the call's did, or seems to: so it was left with the call, unless
        // it has made one since that stays. C that the call has left on this very stack tells nothing of who has the stack.
        let left = stack.filter(|stack| c_sp != call.rust_sp() && !stay.contains(&stack.base()));
        if let Some(stack) = left {
            mark(hot, record, stack);
        }
    }
    payloads
}

/// The bases of the thread's idle stacks.
fn idle(hot: &Hot) -> Vec<usize> {
    hot.idle().map(Control::base).collect()
}

/// Whether the stack is in use by an upcall of this thread that does not seem left. What a fiber's code goes on on is the fiber's affair.
fn is_upcalls(hot: &Hot, stack: &Control) -> bool {
    stack.mark.get().serial == hot.mark().serial
        && stack.purpose.get() == Purpose::Upcall
        && stack.fiber().is_none()
        && !stack.seems_left.get()
}

fn mark(hot: &Hot, record: &Record, stack: &'static Control) {
    if is_upcalls(hot, stack) {
        stack.seems_left.set(true);
        // Its own address is that of no idle stack: should it come back, that is noticed.
        stack.next.set(stack);
        record.left_stacks.borrow_mut().push_back(stack);
    }
}

/// Marks the stacks of upcalls that were made from below `sp`, on its stack; says how many others are in use for upcalls from undescribed stacks.
fn upcalls(hot: &Hot, record: &Record, sp: usize) -> usize {
    let idle = idle(hot);
    let mut in_use = Vec::new();
    pool::for_each_taken(|stack| {
        if is_upcalls(hot, stack) && !idle.contains(&stack.base()) {
            in_use.push(stack);
        }
    });
    let here = certain(hot, sp);
    let mut undescribed = 0;
    for stack in in_use {
        let system_sp = stack.system_sp.load(Relaxed);
        if here.is_some_and(|here| here.contains(system_sp) && system_sp < sp) {
            mark(hot, record, stack);
        } else if !stackbounds::at(system_sp).is_exact() {
            undescribed += 1;
        }
    }
    undescribed
}

/// Makes spares of the stacks that have seemed left for the longest time, but of the last `kept`.
fn use_again(hot: &Hot, record: &Record, kept: usize) {
    let mut left = record.left_stacks.borrow_mut();
    let again = left.len().saturating_sub(kept);
    for stack in left.drain(..again) {
        stack.seems_left.set(false);
        if stack.is_spare_size.get() {
            hot.add_spare(stack);
        } else {
            hot.give_back(stack);
        }
    }
}

/// An upcall has returned whose stack seemed left.
#[cold]
pub(super) fn came_back(hot: &Hot) {
    hot.calls.note_copies();
    if let Some(record) = hot.record() {
        record.left_stacks.borrow_mut().drain(..).for_each(|stack| stack.seems_left.set(false));
    }
}
