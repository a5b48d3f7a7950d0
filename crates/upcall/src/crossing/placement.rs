//! Where an upcall runs: the decision, if the thread's cached ranges do not give it.
//!
//! ```text
//! the upcall comes from                      Auto, Pooled                        Caller
//! ────────────────────────────────────────────────────────────────────────────────────────
//! exact bounds, enough room                  in place (Pooled: pooled stack)     in place
//! exact bounds, too little room              pooled stack                        refused
//! own stack, copied away by the host         pooled stack                        in place
//! estimated bounds                           pooled stack                        in place
//! signal handler on an alternate stack       reserve, or a spare; else refused   in place
//! ```

use std::sync::atomic::Ordering::Relaxed;

use stackbounds::StackBounds;
use stackbounds::for_upcall::{RangeKind, around};

use super::thunk::Body;
use super::{Entry, Refusal, StackChoice, run_pooled};
use crate::config::{ForeignStacks, settings};
use crate::stack::pool::Purpose;
use crate::stack::{CStays, StackHeader, header_at, pool, service};
use crate::thread::{CallName, Payload, ThreadState, abandoned, attach, own_stack};

/// The need of an entry with [`StackChoice::Caller`] and without `min_stack`: 16 KiB, enough for
/// Rust code of modest depth and for a panic.
const CALLER_MIN_STACK: usize = 16 << 10;

impl Entry {
    /// The upcall's need of stack, in bytes.
    pub(super) fn needs(&self, thread: &ThreadState) -> usize {
        self.min_stack.unwrap_or(match self.choice {
            StackChoice::Caller => CALLER_MIN_STACK,
            _ => thread.min_stack(),
        })
    }
}

/// The origin of an upcall: its SP and stack.
pub(super) struct Origin {
    sp: usize,
    stack: StackBounds,
    pub is_signal_stack: bool,
}

impl Origin {
    /// Looks up the stack of `sp`. `in_handler`: whether `sp` is on a signal stack, if the caller
    /// knows.
    pub fn at(sp: usize, in_handler: Option<bool>) -> Self {
        let stack = stackbounds::at(sp);
        let ask = || service::ask(|| attach::is_on_signal_stack(sp));
        let is_signal_stack = !stack.is_exact() && in_handler.unwrap_or_else(ask);
        Self { sp, stack, is_signal_stack }
    }
}

/// The decision: where an upcall runs.
pub(super) enum Placement {
    Caller,
    Pooled(Pooled),
}

/// A pooled stack, taken for one use.
pub(super) struct Pooled {
    stack: &'static StackHeader,
    /// SP of C in downcalls from this stack. `None`: below the frame of the switch to it.
    system_sp: Option<usize>,
    /// The stack is the thread's reserve for signal handlers.
    is_reserve: bool,
}

impl Pooled {
    /// Takes a pooled stack with at least `bytes` bytes, for a caller at `sp` on the stack `from`.
    pub fn take(
        thread: &'static ThreadState,
        bytes: usize,
        sp: usize,
        from: &StackBounds,
    ) -> Result<Pooled, Refusal> {
        if !from.is_exact() {
            check_open(thread, sp)?;
        }
        let default = thread.spare_stack();
        let spare = if bytes <= default { thread.take_spare() } else { None };
        let stack = match spare {
            Some(spare) => spare,
            None => from_pool(thread, bytes.max(default), sp, Purpose::Upcall)?,
        };
        // The caller may be on a pooled stack itself: C code called there without a downcall, or
        // Rust code that wants more room. The system stack is then the one beneath that stack's
        // first frame; if C frames of a fiber are live there, it is that stack itself. If the
        // caller is a fiber's code, so is the code on the new stack.
        let beneath = if from.is_exact() && !thread.owns(sp) { header_at(sp) } else { None };
        let system_sp = |from: &StackHeader| {
            if let Some(fiber) = from.fiber() {
                fiber.continue_on(stack, from);
            }
            (from.c_stays.get() != CStays::WithC).then(|| {
                stack.system_bounds.follow(&from.system_bounds);
                from.system_sp.load(Relaxed)
            })
        };
        let system_sp = beneath.and_then(system_sp);
        match (beneath, system_sp) {
            // Until `run` sets it, the caller's SP stands for where C goes on.
            (Some(from), None) => {
                stack.system_sp.store(sp, Relaxed);
                stack.system_epoch.set(from.epoch.get());
            }
            _ => stack.system_epoch.set(0),
        }
        Ok(Pooled { stack, system_sp, is_reserve: false })
    }

    /// Runs `body` on the stack, and gives the stack back. If `body` panics, returns the result of
    /// `caught`.
    #[inline(always)]
    pub fn run<T>(
        self,
        thread: &ThreadState,
        body: Body<'_>,
        caught: impl FnOnce(Payload) -> T,
    ) -> Option<T> {
        let function = body.function;
        let failed =
            run_pooled(thread, self.stack, self.system_sp, || body.run(), caught, CallName::Upcall(function));
        if let Some(fiber) = self.stack.fiber() {
            fiber.leave(self.stack);
        }
        if self.is_reserve {
            thread.put_reserve(self.stack);
        } else {
            thread.put_back(self.stack);
        }
        failed
    }
}

/// Decides where an upcall runs.
pub(super) fn choose_placement(
    thread: &'static ThreadState,
    entry: Entry,
    from: &Origin,
) -> Result<Placement, Refusal> {
    if from.is_signal_stack {
        return place_in_handler(thread, entry);
    }
    let (sp, from) = (from.sp, &from.stack);
    if !from.is_exact() && thread.checks_foreign() {
        check_foreign(thread, sp)?;
    } else if from.is_exact() && !thread.owns(sp) {
        thread.learn_own_stack(sp, from);
        if header_at(sp).and_then(StackHeader::fiber).is_some_and(|fiber| fiber.refuses.get()) {
            return Err(Refusal::FiberDropped);
        }
    }
    note_surroundings(thread, sp);
    let room = match entry.choice {
        _ if !thread.owns(sp) => from.room_below(sp),
        StackChoice::Caller => Some(thread.verified_below(sp)),
        _ => Some(thread.usable_below(sp)),
    };
    let needed = entry.needs(thread);
    let moves = thread.stack_moves_at(sp);
    match (entry.choice, room) {
        (StackChoice::Caller, Some(remaining)) if remaining < needed => {
            Err(Refusal::NoRoom { needed, remaining })
        }
        (StackChoice::Caller, _) => Ok(Placement::Caller),
        (StackChoice::Auto, Some(remaining)) if remaining >= needed && !moves => Ok(Placement::Caller),
        _ => Pooled::take(thread, needed, sp, from).map(Placement::Pooled),
    }
}

/// Decides where an upcall from a signal handler on an alternate stack runs.
///
/// It neither locks nor allocates, since the interrupted code may be doing either.
fn place_in_handler(thread: &'static ThreadState, entry: Entry) -> Result<Placement, Refusal> {
    if entry.choice == StackChoice::Caller {
        return Ok(Placement::Caller);
    }
    let fits = entry.min_stack.is_none_or(|needed| needed <= thread.spare_stack());
    let places = || thread.record().is_some_and(|record| service::run(|| record.has_places()));
    if !(fits && places()) {
        return Err(Refusal::SignalHandler);
    }
    let reserve = thread.take_reserve();
    let is_reserve = reserve.is_some();
    let stack = reserve.or_else(|| thread.take_spare()).ok_or(Refusal::SignalHandler)?;
    Ok(Placement::Pooled(Pooled { stack, system_sp: None, is_reserve }))
}

/// Caches the decision for later upcalls of the default size from the same range.
///
/// A host that switched to a stack once will switch to it again.
fn note_surroundings(thread: &ThreadState, sp: usize) {
    let Some(around) = around(sp).filter(|_| !thread.is_exiting()) else { return };
    let floor = around.low.saturating_add(thread.min_stack());
    match around.kind {
        RangeKind::Gap if thread.checks_foreign() || thread.is_near_limit() => {}
        RangeKind::Gap => thread.spare_range.set(around.low, around.high, around.version),
        RangeKind::Stack | RangeKind::Slot if sp >= floor => {
            thread.in_place_range.set(floor, around.high, around.version)
        }
        RangeKind::Stack => thread.spare_range.set(around.low, floor.min(around.high), around.version),
        // On a pooled stack, the system stack has to be looked up for each upcall.
        RangeKind::Slot => {}
    }
}

/// Handles an upcall from an undescribed stack, if the settings ask for a report or a refusal.
#[cold]
#[inline(never)]
fn check_foreign(thread: &ThreadState, sp: usize) -> Result<(), Refusal> {
    // If the platform does not tell the thread's own stack, every stack would be foreign: none is
    // reported.
    if thread.own_stack().is_some() {
        own_stack::report_foreign(thread, sp);
        if settings().foreign_stacks == ForeignStacks::Refuse {
            return Err(Refusal::ForeignStack { sp });
        }
    }
    Ok(())
}

/// Refuses an upcall from an undescribed stack if the allowed number of them is open.
///
/// Upcalls that take a spare without coming here are few enough: see
/// [`ThreadState::is_near_limit`].
fn check_open(thread: &'static ThreadState, sp: usize) -> Result<(), Refusal> {
    let limit = settings().open_upcalls;
    if thread.upcall_stacks_in_use() >= limit && abandoned::reclaim(thread, sp).undescribed >= limit {
        return Err(Refusal::TooManyOpen { limit });
    }
    Ok(())
}

/// Takes a stack with at least `bytes` bytes from the pool, for the calling thread at `sp`.
#[cold]
#[inline(never)]
pub(crate) fn from_pool(
    thread: &'static ThreadState,
    bytes: usize,
    sp: usize,
    purpose: Purpose,
) -> Result<&'static StackHeader, Refusal> {
    let size = pool::slot_size_for(bytes);
    let is_spare_size = size == pool::slot_size_for(thread.spare_stack());
    if purpose == Purpose::Upcall && thread.has_many_stacks() {
        let spare = || if is_spare_size { thread.take_spare() } else { None };
        abandoned::refill(thread);
        let found = spare().or_else(|| {
            thread.note_scan(abandoned::reclaim(thread, sp).stacks);
            spare()
        });
        if let Some(spare) = found {
            return Ok(spare);
        }
    }
    let taken = service::run(|| pool::take(size?, sp, purpose, thread.id()));
    let stack = taken.ok_or(Refusal::OutOfMemory { bytes })?;
    stack.is_spare_size.set(is_spare_size);
    thread.count_stack(purpose);
    if thread.is_near_limit() {
        thread.forget_surroundings();
    }
    Ok(stack)
}
