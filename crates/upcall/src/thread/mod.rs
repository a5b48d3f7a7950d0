//! Threads: upcall's state for each, from its first upcall to its exit.
//!
//! [`ThreadState`] is the part that every upcall uses. It is a `thread_local!`, const and without
//! Drop, so it is valid from a thread's first instruction to its last, key destructors included.
//! [`record`] has the rest.

pub(crate) mod abandoned;
pub(crate) mod attach;
mod cached_range;
mod calls;
pub(crate) mod deferred_wake;
pub(crate) mod exceptions;
mod life;
pub(crate) mod locals;
mod open_call;
pub(crate) mod own_stack;
pub(crate) mod parker;
mod pins;
pub(crate) mod record;
mod sleep;
mod stacks;
pub(crate) mod waker;
mod word;
pub(crate) mod wrong_thread;

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;

pub(crate) use attach::Attached;
use cached_range::CachedRange;
pub(crate) use calls::{Calls, Closed};
use exceptions::Exceptions;
use life::Life;
pub(crate) use open_call::{C_HERE, CallNumber, Frame, OpenCall, Payload, PendingPanic};
use own_stack::OwnStack;
pub(crate) use parker::{Parked, Parker};
pub(crate) use pins::{RecordPin, waits_for};
pub(crate) use record::Record;
use sleep::Sleep;
use stacks::Stacks;
pub(crate) use wrong_thread::CallName;

use crate::config::{Config, ForeignStacks};
use crate::function::Function;
pub(crate) use crate::published::{CurrentUpcall, CurrentUpcallCell};
use crate::stack::{StackHeader, ThreadId, header_at, header_of_thread_at, pool};
use crate::sys::isa::thread_token;

/// The part of a thread's state that every upcall uses.
///
/// Only the owning thread writes it. The fields read by other threads' snapshots are atomic.
///
/// Signal handlers make calls between any two instructions that use it; so do the coroutines that
/// they switch to. A field that must be exact nevertheless changes in one of three ways: by a
/// single instruction (`Word`), on a service stack with signals blocked, or once only. These fields
/// are the idle stacks, the places for downcalls, and the counts. The others are hints, either
/// checked before use or only shown: `upcall`, `fiber`, `pooled`, `spare_range`, `in_place_range`,
/// `next_scan_at`.
pub(crate) struct ThreadState {
    id: Cell<ThreadId>,
    own: OwnStack,
    limits: Limits,
    /// The upcall that is running, or made the running downcall, as far as is known. An upcall made
    /// by C inside an upcall, without a downcall between, resets it to none when it returns into
    /// the outer one.
    pub upcall: CurrentUpcallCell,
    /// The hint read by `fiber_stack`.
    pub fiber: Cell<*const StackHeader>,
    /// The pooled stack last entered or returned to, or null. It is a hint, valid only if SP is on
    /// this stack. Rule: **the hint is a stack of this thread**, in use or idle.
    pub pooled: Cell<*const StackHeader>,
    /// The free places for downcalls, and their numbers.
    pub calls: Calls,
    /// Two ranges outside the own stack, as the last upcalls found them. From `spare_range`,
    /// upcalls of the default size go to a spare stack, and their system stack is the one they came
    /// from. In `in_place_range`, they run in place.
    pub spare_range: CachedRange,
    pub in_place_range: CachedRange,
    stacks: Stacks,
    pub sleep: Sleep,
    pub life: Life,
    /// The thread's C++ exceptions, once a runtime is known and a fiber was made.
    pub exceptions: Cell<Option<&'static Exceptions>>,
}

/// Copies of the process's settings, for upcalls away from the thread's own stack.
struct Limits {
    spare_stack: Cell<usize>,
    checks_foreign: Cell<bool>,
    open_upcalls: Cell<usize>,
    /// Whether spare stacks have the size configured for fibers.
    fibers_on_spares: Cell<bool>,
}

thread_local! {
    static STATE: ThreadState = const {
        ThreadState {
            id: Cell::new(ThreadId { token: 0, serial: 0 }),
            own: OwnStack::unknown(),
            limits: Limits {
                spare_stack: Cell::new(0),
                checks_foreign: Cell::new(false),
                open_upcalls: Cell::new(0),
                fibers_on_spares: Cell::new(false),
            },
            upcall: CurrentUpcallCell::new(),
            fiber: Cell::new(ptr::null()),
            pooled: Cell::new(ptr::null()),
            calls: Calls::new(),
            spare_range: CachedRange::empty(),
            in_place_range: CachedRange::empty(),
            stacks: Stacks::none(),
            sleep: Sleep::new(),
            life: Life::new(),
            exceptions: Cell::new(None),
        }
    };
}

impl ThreadState {
    /// The calling thread's state.
    #[inline(always)]
    pub fn current() -> &'static ThreadState {
        // SAFETY: the thread-local has no Drop and lives as long as its thread. The reference stays
        // on the thread (`ThreadState` is not Sync), in frames of calls that the thread outlives.
        STATE.with(|thread| unsafe { &*ptr::from_ref(thread) })
    }

    /// Copies the settings that upcalls need.
    fn set_settings(&self, settings: &Config) {
        self.own.set_settings(settings);
        let Limits { spare_stack, checks_foreign, open_upcalls, fibers_on_spares } = &self.limits;
        spare_stack.set(pool::room_with(settings.spare_stack()));
        checks_foreign.set(settings.foreign_stacks != ForeignStacks::Allow);
        open_upcalls.set(settings.open_upcalls);
        let slot = pool::slot_size_for;
        fibers_on_spares.set(slot(settings.fiber_stack) == slot(settings.spare_stack()));
    }

    /// The least number of bytes in a spare stack.
    pub fn spare_stack(&self) -> usize {
        self.limits.spare_stack.get()
    }

    /// Whether upcalls from undescribed stacks are reported or refused.
    pub fn checks_foreign(&self) -> bool {
        self.limits.checks_foreign.get()
    }

    /// The pooled stack that `sp` is on, according to the hint `pooled`.
    #[inline(always)]
    pub fn pooled_at(&self, sp: usize) -> Option<&'static StackHeader> {
        // The hint is not dereferenced yet: other coroutines of the thread may have given the stack
        // back since it was set. Slots are at least this large and aligned to their size, so a
        // small difference in the bits proves that `sp` is in the hint's slot.
        let hint = self.pooled.get();
        if (hint as usize ^ sp) >= pool::SMALLEST_SLOT {
            return None;
        }
        // SAFETY: this code runs in the hint's slot, on a stack of this thread. So the stack was
        // not given back, and its StackHeader is valid.
        Some(unsafe { &*hint })
    }

    /// The pooled stack of running code at `sp`; `None` on the thread's own stack.
    #[inline(always)]
    pub fn stack_at(&self, sp: usize) -> Option<&'static StackHeader> {
        if self.owns(sp) { None } else { self.pooled_at(sp).or_else(|| header_at(sp)) }
    }

    /// The offset of `calls` in this struct.
    pub const CALLS: usize = offset_of!(ThreadState, calls);

    /// The address of the `ThreadState` around `calls`.
    #[inline(always)]
    pub fn around(calls: &Calls) -> *const u8 {
        ptr::from_ref(calls).cast::<u8>().wrapping_sub(Self::CALLS)
    }

    /// Clears `spare_range` and `in_place_range`.
    ///
    /// An exiting thread does not set them again. So its calls take the slow path, with the check
    /// whether the thread can detach.
    pub fn forget_surroundings(&self) {
        self.spare_range.set(0, 0, 0);
        self.in_place_range.set(0, 0, 0);
    }

    /// The stack of the running fiber, as far as is known. If one fiber polls another, it is the
    /// stack of the innermost.
    pub fn fiber_stack(&self) -> Option<&'static StackHeader> {
        // Coroutine calls return in any order, and C abandons some by `longjmp`. So the hint may be
        // the stack of a fiber that is gone.
        let hint = self.fiber.get();
        let stack = header_of_thread_at((hint as usize).checked_sub(1)?, self.id())?;
        (ptr::eq(stack, hint) && stack.runs()).then_some(stack)
    }

    /// The thread's identity. A frame keeps it to check, after other code ran, whether it is still
    /// on this thread.
    #[inline(always)]
    pub fn id(&self) -> ThreadId {
        self.id.get()
    }

    /// Aborts with a message unless `id` is the calling thread's.
    ///
    /// `id` is the identity kept by a frame from before it let other code run. By now, the thread
    /// of `self` may be gone. So `self` is read only if it is at a fixed distance from the thread
    /// pointer, and the thread pointer is unchanged. `call` is named in the message.
    #[inline(always)]
    pub fn check_same_thread(&self, id: ThreadId, call: CallName) {
        if !id.is_beside_token() {
            return check_afresh(id, call);
        }
        if thread_token() != id.token || self.id.get().serial != id.serial {
            wrong_thread::abort_on_wrong_thread(id, call);
        }
    }

    /// Aborts with a message unless `self` is the calling thread's state.
    ///
    /// For frames on a thread's own stack: this stack goes with its thread, so `self` is still
    /// valid and comparing the token is enough.
    #[inline(always)]
    pub fn check_same_token(&self, call: CallName) {
        if thread_token() != self.id.get().token {
            self.wrong_thread(call);
        }
    }

    #[cold]
    #[inline(never)]
    fn wrong_thread(&self, call: CallName) -> ! {
        wrong_thread::abort_on_wrong_thread(self.id.get(), call)
    }

    /// Whether an upcall is running, or made the running downcall, according to `upcall`.
    pub fn is_in_upcall(&self) -> bool {
        self.upcall.sp() != 0
    }

    /// Notes that an upcall made by C at `sp` is running, until the result is dropped.
    #[inline(always)]
    pub fn begin_upcall(&self, sp: usize, function: Function) -> RunningUpcall<'_> {
        self.upcall.set(CurrentUpcall { sp, function: Some(function) });
        RunningUpcall(self)
    }

    /// Notes that no upcall is running.
    #[inline(always)]
    pub fn set_no_upcall(&self) {
        self.upcall.set_sp(0);
    }
}

/// A running upcall. Dropping it notes that no upcall is running.
#[must_use]
pub(crate) struct RunningUpcall<'a>(&'a ThreadState);

impl Drop for RunningUpcall<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.set_no_upcall();
    }
}

/// Aborts with a message unless `id` is the calling thread's, for a `ThreadState` whose place may
/// differ among threads.
///
/// The calling thread's `ThreadState` is looked up anew, in a function of its own. This function
/// has no address of a thread-local from before other code ran.
#[cold]
#[inline(never)]
fn check_afresh(id: ThreadId, call: CallName) {
    if thread_token() != id.token || ThreadState::current().id.get().serial != id.serial {
        wrong_thread::abort_on_wrong_thread(id, call);
    }
}
