//! Where an upcall runs: decided when the thread does not know from the last one.

use std::sync::atomic::Ordering::Relaxed;

use stackbounds::{Kind, StackBounds};

use super::body::Body;
use super::{Entry, Refusal, StackChoice, run_pooled, upcall_of};
use crate::config::{ForeignStacks, settings};
use crate::stack::pool::Purpose;
use crate::stack::{Control, control_at, pool, service};
use crate::thread::{Hot, Payload, left, record};

/// What [`StackChoice::Caller`] asks for if the entry does not say: 16 KiB, enough for Rust code of modest depth
/// and for a panic.
const CALLER_MIN_STACK: usize = 16 << 10;

/// Where an upcall comes from.
pub(super) struct From {
    sp: usize,
    stack: StackBounds,
    pub is_signal_stack: bool,
}

impl From {
    /// `in_handler` says whether that is on a signal stack, if it has been asked.
    pub fn at(sp: usize, in_handler: Option<bool>) -> Self {
        let stack = stackbounds::at(sp);
        let ask = || service::run(|| record::is_on_signal_stack(sp));
        let is_signal_stack = !stack.is_exact() && in_handler.unwrap_or_else(ask);
        Self { sp, stack, is_signal_stack }
    }
}

/// Where an upcall is to run.
pub(super) enum Place {
    Caller,
    Pooled(Pooled),
}

/// A pooled stack, taken for one use.
pub(super) struct Pooled {
    stack: &'static Control,
    /// Where downcalls continue; `None` for below the frame that leaves for the stack.
    system_sp: Option<usize>,
}

impl Pooled {
    /// A pooled stack with at least `bytes` for a caller at `sp`, whose stack is `from`.
    pub fn take(hot: &'static Hot, bytes: usize, sp: usize, from: &StackBounds) -> Result<Pooled, Refusal> {
        let default = hot.min_stack();
        let spare = if bytes <= default { hot.take_spare() } else { None };
        let stack = match spare {
            Some(spare) => spare,
            None => from_pool(hot, bytes.max(default), sp, Purpose::Upcall)?,
        };
        // A caller on a pooled stack, C code that Rust code there called without a downcall or Rust code that wants more room, has
        // its system stack beneath that stack's first frame; unless that is the stack itself. If it is a fiber's code, so is what runs here.
        let beneath = if from.is_exact() && !hot.owns(sp) { control_at(sp) } else { None };
        let system_sp = |stack: &Control| (!stack.has_c.get()).then(|| stack.system_sp.load(Relaxed));
        let system_sp = beneath.and_then(system_sp);
        if let Some(fiber) = beneath.and_then(Control::fiber) {
            fiber.continue_on(stack, system_sp.is_some());
        }
        Ok(Pooled { stack, system_sp })
    }

    /// Runs `body` on the stack and gives the stack back. Returns what `caught` makes of its panic, if it panicked.
    #[inline(always)]
    pub fn run<T>(self, hot: &Hot, body: Body<'_>, caught: impl FnOnce(Payload) -> T) -> Option<T> {
        let function = body.function;
        let failed =
            run_pooled(hot, self.stack, self.system_sp, || body.run(), caught, || upcall_of(function));
        if let Some(fiber) = self.stack.fiber() {
            fiber.leave(self.stack);
        }
        hot.put_back(self.stack);
        failed
    }
}

/// Decides where an upcall runs.
pub(super) fn place(hot: &'static Hot, entry: Entry, from: &From) -> Result<Place, Refusal> {
    if from.is_signal_stack {
        return place_in_handler(hot, entry);
    }
    let (sp, from) = (from.sp, &from.stack);
    if !from.is_exact() && hot.checks_foreign() {
        check_foreign(hot, sp)?;
    } else if from.is_exact() && !hot.owns(sp) {
        record::learn_own_stack(hot, from);
        if control_at(sp).and_then(Control::fiber).is_some_and(|fiber| fiber.refuses.get()) {
            return Err(Refusal::FiberDropped);
        }
    }
    note_surroundings(hot, sp);
    let room = from.room_below(sp);
    let needed = entry.min_stack.unwrap_or(match entry.choice {
        StackChoice::Caller => CALLER_MIN_STACK,
        _ => hot.min_stack(),
    });
    match (entry.choice, room) {
        (StackChoice::Caller, Some(left)) if left < needed => Err(Refusal::NoRoom { needed, left }),
        (StackChoice::Caller, _) => Ok(Place::Caller),
        (StackChoice::Auto, Some(left)) if left >= needed => Ok(Place::Caller),
        _ => Pooled::take(hot, needed, sp, from).map(Place::Pooled),
    }
}

/// Where an upcall from a signal handler on an alternate stack runs: nothing may be locked or allocated that the interrupted code may be about to.
fn place_in_handler(hot: &'static Hot, entry: Entry) -> Result<Place, Refusal> {
    if entry.choice == StackChoice::Caller {
        return Ok(Place::Caller);
    }
    let fits = entry.min_stack.is_none_or(|needed| needed <= hot.min_stack());
    let spare = if fits && hot.calls.has_places() { hot.take_spare() } else { None };
    spare.map(|stack| Place::Pooled(Pooled { stack, system_sp: None })).ok_or(Refusal::SignalHandler)
}

/// Notes for later upcalls from there what is to be done with those of the default size: a stack switched to once is
/// switched to again.
fn note_surroundings(hot: &Hot, sp: usize) {
    let Some(around) = stackbounds::around(sp).filter(|_| !hot.is_exiting()) else { return };
    let floor = around.low.saturating_add(hot.min_stack());
    match around.kind {
        Kind::Gap if hot.checks_foreign() => {}
        Kind::Gap => hot.to_spare.note(around.low, around.high, around.version),
        Kind::Stack | Kind::Slot if sp >= floor => hot.in_place.note(floor, around.high, around.version),
        Kind::Stack => hot.to_spare.note(around.low, floor.min(around.high), around.version),
        // On a pooled stack, what the system stack is has to be looked up.
        Kind::Slot => {}
    }
}

/// An upcall came from a stack that nobody described, and somebody wants to know.
#[cold]
#[inline(never)]
fn check_foreign(hot: &Hot, sp: usize) -> Result<(), Refusal> {
    // Where the platform does not tell the thread's own stack, every stack would be foreign.
    if hot.own_stack().is_some() {
        record::report_foreign(hot, sp);
        if settings().foreign_stacks == ForeignStacks::Refuse {
            return Err(Refusal::ForeignStack { sp });
        }
    }
    Ok(())
}

/// A stack of the pool for the calling thread, which is at `sp`, with at least `bytes`.
#[cold]
#[inline(never)]
pub(crate) fn from_pool(
    hot: &'static Hot,
    bytes: usize,
    sp: usize,
    purpose: Purpose,
) -> Result<&'static Control, Refusal> {
    let size = pool::slot_size_for(bytes);
    let is_spare_size = size == pool::slot_size_for(hot.min_stack());
    if purpose == Purpose::Upcall && hot.has_many_stacks() {
        let limit = settings().open_upcalls;
        let open = left::reclaim(hot, sp).undescribed;
        hot.note_looked(limit.saturating_sub(open));
        if open >= limit && !stackbounds::at(sp).is_exact() {
            return Err(Refusal::TooManyOpen { limit });
        }
        let spare = if is_spare_size { hot.take_spare() } else { None };
        if let Some(spare) = spare {
            return Ok(spare);
        }
    }
    let taken = service::run(|| pool::take(size?, sp, purpose, hot.mark()));
    let stack = taken.ok_or(Refusal::OutOfMemory { bytes })?;
    stack.is_spare_size.set(is_spare_size);
    hot.count_stack(purpose);
    Ok(stack)
}
