//! Abandoned calls: finding those that C skipped by `longjmp`, and reusing their stacks.
//!
//! If code runs at SP on a stack with exact bounds, everything below SP on that stack is gone. If a
//! later downcall began further up, everything below its beginning is gone too:
//!
//! ```text
//! high │  downcall 1: C began here            open
//!      │  SP is here now, or was when a later downcall began
//!      │ ───────────────────────────────────  gone below this line
//!      │  downcall 2: C began here            abandoned, with the upcall that made it
//! low  │  an upcall on a pooled stack         abandoned, if C made it here
//! ```
//!
//! So these calls are abandoned: downcalls whose C code began in a gone part, the upcalls on pooled
//! stacks to which they would have returned, and the upcalls on pooled stacks made from a gone
//! part. On an undescribed stack, a call below SP may belong to another stack, whose code is
//! suspended; nothing is certain there. Rule: **whatever might still be live is never freed.**
//!
//! A host may copy its threads' stacks, so abandoned frames may appear again. Such a host looks
//! exactly like one with `longjmp`, until a call returns that seemed abandoned. From then on, the
//! thread's own stack proves nothing. For the same reason, there is no scan while calls and stacks
//! are few. A pooled stack that seems abandoned is reused only after [`QUARANTINE`] more have
//! seemed so. The place of a downcall may be reused at once: if the call does return, it notices
//! that its place is gone and goes on without. A panic pending there is reported to C only.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::StackBounds;
use stackbounds::for_upcall::{RangeKind, described};

use super::{OpenCall, Payload, Record, ThreadState};
use crate::drop_guards::drop_ignoring_panics;
use crate::stack::pool::{self, Purpose};
use crate::stack::{StackHeader, header_of_thread_at, service};

/// From so many places for downcalls on, or stacks for upcalls, a scan is worth its cost.
pub(super) const MANY_CALLS: usize = 1024;
pub(super) const MANY_STACKS: usize = 256;
/// The number of stacks in quarantine. The oldest ones beyond it are reused.
const QUARANTINE: usize = 256;

/// The result of a scan.
#[derive(Default)]
pub(crate) struct Found {
    /// The number of abandoned downcalls. Their places are free now.
    pub calls: usize,
    /// The number of open upcalls from undescribed stacks, as far as is known.
    pub undescribed: usize,
    /// The number of reusable stacks.
    pub stacks: usize,
}

/// Scans for abandoned calls and makes spares of the reusable stacks. The caller is at `sp`.
#[cold]
#[inline(never)]
pub(crate) fn reclaim(thread: &'static ThreadState, sp: usize) -> Found {
    let Some(record) = thread.record() else { return Found::default() };
    let (payloads, found) = service::run(|| {
        let (payloads, undescribed) = look(thread, record, sp);
        let stacks = record.quarantine.borrow().len().saturating_sub(QUARANTINE);
        add_spares(thread, record);
        let calls = payloads.len();
        (payloads, Found { calls, undescribed, stacks })
    });
    drop_all(payloads);
    found
}

/// Makes spares of reusable stacks found by earlier scans.
#[cold]
#[inline(never)]
pub(crate) fn refill(thread: &ThreadState) {
    if let Some(record) = thread.record() {
        service::run(|| add_spares(thread, record));
    }
}

/// Reclaims everything abandoned, at the thread's exit. Returns the pending panics.
///
/// On the thread's own stack, there is nobody left to come back. So the quarantine ends too.
pub(super) fn reclaim_all(thread: &'static ThreadState, record: &Record, sp: usize) -> Payloads {
    if !thread.owns(sp) {
        return Vec::new();
    }
    let (payloads, _) = look(thread, record, sp);
    for stack in record.quarantine.borrow_mut().drain(..) {
        stack.seems_abandoned.set(false);
        thread.give_back(stack);
    }
    payloads
}

/// The pending panics of abandoned calls.
pub(super) type Payloads = Vec<Option<Payload>>;

/// Drops the payloads on the caller's stack, because their destructors may be any code.
pub(super) fn drop_all(payloads: Payloads) {
    payloads.into_iter().flatten().for_each(|payload| drop_ignoring_panics(|| drop(payload)));
}

fn look(thread: &ThreadState, record: &Record, sp: usize) -> (Payloads, usize) {
    let undescribed = upcalls(thread, record, sp);
    let payloads = calls(thread, record, sp);
    super::pins::unpin_abandoned(thread, sp);
    (payloads, undescribed)
}

/// The stack around `sp`, if everything below `sp` there is certainly gone.
fn certain(thread: &ThreadState, sp: usize) -> Option<StackBounds> {
    let stack = stackbounds::at(sp);
    (stack.is_exact() && !(thread.calls.copies() && thread.owns(sp))).then_some(stack)
}

/// The highest SP of later code on each exactly known stack. Anything that began below it is gone.
struct Highest<'a> {
    thread: &'a ThreadState,
    /// The highest SP, by the stack's lowest address.
    of_stacks: BTreeMap<usize, usize>,
}

impl Highest<'_> {
    /// Notes that code was at `sp`. Returns whether later code has been further up.
    fn rise_to(&mut self, sp: usize) -> bool {
        let Some(stack) = certain(self.thread, sp) else { return false };
        let highest = self.of_stacks.entry(stack.low()).or_insert(0);
        let was_abandoned = sp <= *highest;
        *highest = sp.max(*highest);
        was_abandoned
    }
}

/// Reclaims the places of abandoned downcalls and puts the stacks of their upcalls into quarantine.
/// Returns the pending panics.
fn calls(thread: &ThreadState, record: &Record, sp: usize) -> Payloads {
    let mut highest = Highest { thread, of_stacks: BTreeMap::new() };
    highest.rise_to(sp);
    let on_stack = |sp| header_of_thread_at(sp, thread.id());
    // Stacks not to be put into quarantine: idle ones, the running code's, and those that an open
    // downcall will return to.
    let mut stay = idle(thread);
    stay.extend(on_stack(sp).map(StackHeader::base));
    let mut open: Vec<&OpenCall> = record.open_calls().collect();
    open.sort_unstable_by_key(|call| Reverse(call.serial()));
    let mut payloads = Vec::new();
    for call in open {
        let stack = on_stack(call.rust_sp());
        let c_sp = call.c_sp(|_| Some(stack?.system_sp.load(Relaxed)));
        let was_abandoned = highest.rise_to(c_sp);
        if !was_abandoned && !stack.is_some_and(|stack| stack.seems_abandoned.get()) {
            stay.extend(stack.map(StackHeader::base));
            continue;
        }
        payloads.push(thread.calls.reclaim(call));
        // If C ran on another stack, all downcalls from this one begin there, or seem to. So
        // whatever has this stack was abandoned with the call, unless it made a later call that is
        // still open. If C ran on this very stack, the call tells nothing about the present user of
        // the stack.
        let abandoned = stack.filter(|stack| c_sp != call.rust_sp() && !stay.contains(&stack.base()));
        if let Some(stack) = abandoned {
            quarantine(thread, record, stack);
        }
    }
    payloads
}

/// The bases of the thread's idle stacks.
fn idle(thread: &ThreadState) -> Vec<usize> {
    thread.idle().map(StackHeader::base).collect()
}

/// Whether an upcall of this thread uses the stack and does not seem abandoned. A fiber's extension
/// stacks do not count; the fiber takes care of them.
fn is_upcalls(thread: &ThreadState, stack: &StackHeader) -> bool {
    stack.owner.get().serial == thread.id().serial
        && stack.purpose.get() == Purpose::Upcall
        && !stack.has_fiber()
        && !stack.seems_abandoned.get()
}

fn quarantine(thread: &ThreadState, record: &Record, stack: &'static StackHeader) {
    if is_upcalls(thread, stack) {
        stack.seems_abandoned.set(true);
        // So a return of the upcall will be noticed.
        thread.be_careful();
        record.quarantine.borrow_mut().push_back(stack);
    }
}

/// Puts the stacks of upcalls made from below `sp`, on its stack, into quarantine. Returns the
/// number of other stacks in use for upcalls from undescribed stacks.
fn upcalls(thread: &ThreadState, record: &Record, sp: usize) -> usize {
    let idle = idle(thread);
    let mut in_use = Vec::new();
    pool::for_each_taken(|stack| {
        if is_upcalls(thread, stack) && !idle.contains(&stack.base()) {
            in_use.push(stack);
        }
    });
    let here = certain(thread, sp);
    let mut undescribed = 0;
    for stack in in_use {
        let system_sp = stack.system_sp.load(Relaxed);
        let below = here.is_some_and(|here| here.contains(system_sp) && system_sp < sp);
        if below || is_of_ended_fiber(thread, stack, system_sp) {
            quarantine(thread, record, stack);
        } else if !stackbounds::at(system_sp).is_exact() {
            undescribed += 1;
        }
    }
    undescribed
}

/// Whether the upcall on `stack` was made on the stack of a fiber that has ended since: C abandoned
/// the upcall, or it would have returned first.
fn is_of_ended_fiber(thread: &ThreadState, stack: &StackHeader, system_sp: usize) -> bool {
    let epoch = stack.system_epoch.get();
    if epoch == 0 {
        return false;
    }
    match header_of_thread_at(system_sp, thread.id()) {
        Some(system) => system.epoch.get() != epoch,
        None => described(system_sp).kind == RangeKind::Slot,
    }
}

/// Makes spares of the stacks that have seemed abandoned for the longest time, except the last
/// [`QUARANTINE`].
///
/// If there is no place for a spare, the stack waits: the pool would take its pages.
fn add_spares(thread: &ThreadState, record: &Record) {
    let mut abandoned = record.quarantine.borrow_mut();
    while abandoned.len() > QUARANTINE {
        let stack = abandoned[0];
        stack.seems_abandoned.set(false);
        if !stack.is_spare_size.get() {
            thread.give_back(stack);
        } else if !thread.add_spare(stack) {
            stack.seems_abandoned.set(true);
            return;
        }
        abandoned.pop_front();
    }
}

/// Handles the return of an upcall whose stack seemed abandoned.
#[cold]
pub(super) fn came_back(thread: &ThreadState) {
    thread.calls.note_copies();
    if let Some(record) = thread.record() {
        record.quarantine.borrow_mut().drain(..).for_each(|stack| stack.seems_abandoned.set(false));
    }
}
