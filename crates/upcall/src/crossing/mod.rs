//! The crossing: C calls Rust, and Rust calls C back.
//!
//! # The life of an upcall
//!
//! C calls an exported function, and the function calls [`enter`] with a closure, the Rust body.
//! The body may call C in its turn: a *downcall*. The picture follows one upcall from start to end,
//! and names the stack of each step on the right.
//!
//! ```text
//! step                                                           stack
//! ─────────────────────────────────────────────────────────────────────────────────────────────
//! C calls an exported function                                   system stack
//! └─ enter: read SP and the thread's ThreadState                 system stack
//!    │
//!    │  1. choose a stack
//!    ├─ SP on the thread's own stack, room ≥ min_stack,
//!    │  an entry without choices                                 → stay here
//!    └─ otherwise
//!       │  if the thread is new to upcall: attach it             service stack
//!       ├─ StackChoice::Caller                                   → stay here, or refuse
//!       ├─ StackChoice::Auto, bounds exact, room ≥ min_stack     → stay here
//!       └─ otherwise                                             → switch to a pooled stack
//!             if the thread has no spare: take from the pool     service stack
//!    │
//!    │  2. run
//!    └─ catch_unwind; a panic becomes an UpcallError             chosen stack
//!       └─ the Rust body                                         chosen stack
//!          ├─ wait                                               suspends the fiber, or parks
//!          │                                                     the thread: `fiber/wait.rs`
//!          └─ downcall: takes a place in the thread's open calls
//!             ├─ on a fiber's stack, if C is to run there        → call in place: fiber's stack
//!             ├─ on another pooled stack                         → switch back: system stack,
//!             │                                                    below the frames of enter
//!             └─ on any other stack                              → call in place
//!                └─ C                                            may switch stacks itself,
//!                                                                and may call Rust again
//!             ◄─ C returns: same thread? Raise the pending panic, if there is one.
//!    │
//!    │  3. return
//!    ◄─ the body ends: same thread? Put the pooled stack back to the spares or the pool.
//! ◄─ enter returns the value, or an UpcallError after a panic or refusal.
//!    Nothing of the call remains. If the error is dropped, its panic becomes pending at the
//!    enclosing downcall.
//! ```
//!
//! On the thread's own stack, step 1 is one comparison, and nothing is switched. An upcall from a
//! small coroutine runs on a pooled stack, and its downcall goes back. The frames then lie as
//! follows, high addresses at the top:
//!
//! ```text
//!      system stack                                  pooled stack
//!    ┌────────────────────────────┐ high           ┌────────────────────────────┐ base
//!    │ C                          │                │ catch_unwind               │
//!    │ exported function: enter   │ ─── switch ──► │ Rust body                  │
//!    ├────────────────────────────┤                │ downcall                   │
//!    │ C, called by the downcall  │ ◄── switch ─── ├────────────────────────────┤
//!    │ further upcalls begin here │                │ free                       │
//!    ├────────────────────────────┤                │                            │
//!    │ free                       │                └────────────────────────────┘ low
//!    └────────────────────────────┘ low              guard pages
//! ```
//!
//! The *system stack* is the stack of C: the thread's own, or one of the host's. *Pooled stacks*
//! are ours. A thread keeps a few idle ones for its next upcalls, its *spares*. *Service stacks*
//! are ours too, and are for cold paths: if C has only 1 KiB of stack, this is too little for an
//! allocation.
//!
//! # Rules
//!
//! - **An estimate never carries a promise.** Running in place takes exact bounds, or an entry with
//!   [`StackChoice::Caller`]. On the thread's own stack, `Auto` counts as room only verified stack
//!   (`verify` in stackbounds) outside the margin at the low end.
//! - **A return sets the state from the frame that returns**, not from the state left by the last
//!   call: calls may return in any order.
//! - **A call ends on the thread that it began on.** Its return checks this wherever the host could
//!   have moved the stack: in every downcall, and in upcalls outside the thread's own stack. After
//!   a move, upcall reports it and aborts.
//!
//! An allocator called by our own code may make an upcall. It takes none of these steps: it runs at
//! once, in place or on a service stack.

mod answer;
mod attach;
mod c_api_call;
mod detach;
mod downcall;
mod enclosing;
mod entry;
mod error;
pub mod export;
pub mod export_answers;
mod foreign_unwind;
mod last_message;
mod payload;
mod placement;
mod refusal;
mod status;
mod thunk;
mod with_stack;

use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use attach::attach;
#[cfg(feature = "runtime")]
pub(crate) use attach::attach_with_reserve;
pub(crate) use c_api_call::run_c_api;
pub use detach::{InUse, detach};
pub use downcall::{downcall, downcall_on_fiber, downcall_on_system_stack, try_downcall};
pub use entry::{Entry, StackChoice, enter, entry};
pub use error::{UpcallError, UpcallErrorKind, panic_is_pending};
pub use last_message::set_last_message;
pub(crate) use last_message::{keep_message, with_message};
pub use payload::{Interrupted, Killed};
pub use refusal::Refusal;
pub use status::Status;
pub use with_stack::with_stack;

use error::caught;
use foreign_unwind::abort_on_foreign_unwind;
#[cfg(feature = "runtime")]
pub(crate) use foreign_unwind::sleep_if_thread_ends;
pub(crate) use payload::message_of;
pub(crate) use placement::from_pool;
use placement::{Origin, Placement, Pooled, choose_placement};
use thunk::{Body, Thunk};

use crate::coroutine::spans::{SpanKind, UpcallSpan};
use crate::drop_guards::drop_ignoring_panics;
use crate::function::Function;
use crate::stack::{StackHeader, mend_os_bounds, service, switch};
use crate::sync::in_own_code;
use crate::thread::{Attached, CallName, Payload, ThreadState};

/// Runs an upcall without choices that came from outside the thread's own stack, or found too
/// little room there.
///
/// This function and its callees use little stack themselves, since C may have only 1 KiB. Work
/// with larger frames runs on a service stack.
#[inline(never)]
fn enter_off_own_stack<R, F: FnOnce() -> R>(thread: &'static ThreadState, sp: usize, f: F) -> Ended<R> {
    if thread.spare_range.contains(sp) {
        match thread.take_first_spare() {
            Some(stack) => on_spare(thread, sp, stack, f),
            None => on_other_spare(thread, sp, f),
        }
    } else if thread.in_place_range.contains(sp) {
        mend_os_bounds(sp);
        run_in_place(thread, sp, f)
    } else {
        as_chosen(thread, sp, f, entry())
    }
}

#[inline(never)]
fn on_other_spare<R, F: FnOnce() -> R>(thread: &'static ThreadState, sp: usize, f: F) -> Ended<R> {
    match thread.take_other_spare() {
        Some(stack) => on_spare(thread, sp, stack, f),
        None => as_chosen(thread, sp, f, entry()),
    }
}

/// Runs an upcall on a spare stack; its system stack is the caller's stack.
#[inline(never)]
fn on_spare<R, F: FnOnce() -> R>(
    thread: &'static ThreadState,
    sp: usize,
    stack: &'static StackHeader,
    f: F,
) -> Ended<R> {
    let mut thunk = Thunk::of_upcall(f);
    let running = thread.begin_upcall(sp, Function::of::<F>());
    // SAFETY: the thunk is new, so it has not run.
    let run = || unsafe { thunk.run() };
    let name = CallName::Upcall(Function::of::<F>());
    let failed = run_pooled(thread, stack, None, run, move |panic| caught(panic, sp), name);
    drop(running);
    let failed = if thread.put_first_spare(stack) { failed } else { end_with_care(thread, stack, failed) };
    // SAFETY: `run_pooled` has run the thunk, and `failed` is its panic.
    unsafe { ended(thunk, failed) }
}

/// Ends an upcall on a pooled stack if the first place for spares is not free: another stack or
/// `CAREFUL` is in it.
#[cold]
#[inline(never)]
fn end_with_care<T>(thread: &'static ThreadState, stack: &'static StackHeader, failed: T) -> T {
    let _attached = Attached::already(thread);
    thread.put_back_carefully(stack);
    failed
}

/// Runs an upcall on the caller's stack. Its room is enough for a frame as large as `f`'s, too.
#[inline(never)]
fn run_in_place<R, F: FnOnce() -> R>(thread: &'static ThreadState, sp: usize, f: F) -> Ended<R> {
    let function = Function::with(&f);
    let running = thread.begin_upcall(sp, function);
    let name = CallName::Upcall(Function::of::<F>());
    let result = run_here(thread, || UpcallSpan::run(function, || abort_on_foreign_unwind(f)), name);
    let ended = match result {
        Ok(value) => (MaybeUninit::new(value), None),
        Err(panic) => (MaybeUninit::uninit(), Some(caught(panic, sp))),
    };
    drop(running);
    drop(Attached::already(thread));
    ended
}

#[inline(never)]
fn as_chosen<R, F: FnOnce() -> R>(thread: &'static ThreadState, sp: usize, f: F, entry: Entry) -> Ended<R> {
    mend_os_bounds(sp);
    let mut thunk = Thunk::of_upcall(f);
    // SAFETY: the thunk is new: it has neither run nor given away a body.
    let body = unsafe { thunk.body() };
    let failed = chosen(thread, sp, body, entry);
    // SAFETY: `chosen` has run the body, or `failed` is the refusal.
    unsafe { ended(thunk, failed) }
}

/// An upcall's result if it succeeded, and its error if it failed.
///
/// This pair passes small results in registers. An upcall in place then needs no memory for a
/// result made elsewhere.
type Ended<R> = (MaybeUninit<R>, Option<UpcallError>);

/// Turns a thunk into its result, or drops the closure of a refused one.
///
/// # Safety
/// Either the thunk ran, and `failed` is its panic if it panicked; or it did not run, and `failed`
/// is the refusal.
#[inline(always)]
unsafe fn ended<R, F: FnOnce() -> R>(
    thunk: Thunk<F, R, UpcallSpan>,
    failed: Option<UpcallError>,
) -> Ended<R> {
    let Some(error) = failed else {
        // SAFETY: the caller guarantees that a thunk without error ran to its end, so it has a
        // result.
        return (MaybeUninit::new(unsafe { thunk.result() }), None);
    };
    if error.refusal().is_some() {
        // SAFETY: `failed` is a refusal, so the caller guarantees that the thunk did not run.
        drop_ignoring_panics(|| unsafe { thunk.drop_unrun() });
    }
    (MaybeUninit::uninit(), Some(error))
}

/// Runs any upcall: attaches the thread if it is new to upcall, then decides where the body runs.
#[inline(never)]
fn chosen(thread: &'static ThreadState, sp: usize, body: Body<'_>, entry: Entry) -> Option<UpcallError> {
    if in_own_code() {
        return in_our_own_code(thread, sp, body);
    }
    let (attached, in_handler) = Attached::for_upcall(thread, sp);
    let Some(_attached) = attached else {
        return Some(error::refused(thread, sp, Refusal::SignalHandler));
    };
    thread.verify_own_stack(sp, entry.needs(thread));
    // An upcall from a signal handler restores `outer` at its end, for the interrupted code.
    let (from, outer) = (Origin::at(sp, in_handler), thread.upcall.get());
    match choose_placement(thread, entry, &from) {
        Err(refusal) => Some(error::refused(thread, sp, refusal)),
        Ok(place) => {
            let running = thread.begin_upcall(sp, body.function);
            let failed = match place {
                Placement::Caller => on_callers(thread, sp, body),
                Placement::Pooled(pooled) => on_pooled(thread, sp, body, pooled),
            };
            drop(running);
            if from.is_signal_stack {
                thread.upcall.set(outer);
            }
            failed
        }
    }
}

/// Runs a body on the caller's stack.
///
/// This and [`on_pooled`] are functions of their own: in unoptimised builds their frames are large,
/// and the frame of [`chosen`] must be small.
#[inline(never)]
fn on_callers(thread: &ThreadState, sp: usize, body: Body<'_>) -> Option<UpcallError> {
    let function = body.function;
    let result = run_here(thread, || body.run(), CallName::Upcall(function));
    result.err().map(|panic| caught(panic, sp))
}

/// Runs a body on a pooled stack.
#[inline(never)]
fn on_pooled(thread: &ThreadState, sp: usize, body: Body<'_>, pooled: Pooled) -> Option<UpcallError> {
    pooled.run(thread, body, |panic| caught(panic, sp))
}

/// Runs an upcall by an allocator, or a hook of `malloc`, called by our own code.
///
/// If there is enough room, it runs in place, else on a service stack. It leaves no trace in the
/// thread's state. Only its caller hears of its panic.
#[cold]
#[inline(never)]
fn in_our_own_code(thread: &'static ThreadState, sp: usize, body: Body<'_>) -> Option<UpcallError> {
    let outer = thread.upcall.get();
    let has_room = stackbounds::for_upcall::known(sp).and_then(|stack| stack.room_below(sp))
        >= Some(thread.min_stack().max(MUCH));
    let run = || catch_unwind(AssertUnwindSafe(|| body.run()));
    // If this is a service stack already, `service::run` stays on it.
    let result = if has_room { run() } else { service::run(run) };
    thread.upcall.set(outer);
    result.err().map(error::caught_by_nobody)
}

/// An upcall from own code runs in place if this many bytes remain below it, and `min_stack` too.
const MUCH: usize = 128 << 10;

/// Runs `run` in place, on a stack that the host may move to another thread. `what` names the call
/// in the message of the abort.
#[inline(always)]
fn run_here<R>(thread: &ThreadState, run: impl FnOnce() -> R, name: CallName) -> std::thread::Result<R> {
    let id = thread.id();
    let result = catch_unwind(AssertUnwindSafe(run));
    thread.check_same_thread(id, name);
    result
}

/// Runs `run` on a pooled stack, and `caught` on its panic.
///
/// Downcalls continue at `system_sp`; if it is `None`, below this frame. `caught` runs on the
/// pooled stack too, since the caller's stack may have too little room. `what` names the call in
/// the message of an abort.
#[inline(always)]
fn run_pooled<T>(
    thread: &ThreadState,
    stack: &'static StackHeader,
    system_sp: Option<usize>,
    run: impl FnOnce(),
    caught: impl FnOnce(Payload) -> T,
    name: CallName,
) -> Option<T> {
    struct There<F, C, T> {
        run: ManuallyDrop<F>,
        caught: ManuallyDrop<C>,
        failed: Option<T>,
    }
    impl<F: FnOnce(), C: FnOnce(Payload) -> T, T> There<F, C, T> {
        /// Runs `run`, and `caught` if that panics.
        ///
        /// # Safety
        /// Call this once at most.
        #[inline(always)]
        unsafe fn run(&mut self) {
            // SAFETY: the caller guarantees a single call, and only this function takes `run`.
            let run = unsafe { ManuallyDrop::take(&mut self.run) };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                // SAFETY: only this line takes `caught`, and the caller guarantees a single call.
                self.failed = Some(unsafe { ManuallyDrop::take(&mut self.caught) }(payload));
            }
        }
    }
    thread.pooled.set(stack);
    let mut there = There { run: ManuallyDrop::new(run), caught: ManuallyDrop::new(caught), failed: None };
    // The switch copies this closure to the other stack: one pointer.
    let at = &mut there;
    // SAFETY: `on_pooled` runs its closure once.
    switch::on_pooled(stack, system_sp, move || unsafe { at.run() });
    thread.check_same_thread(stack.owner.get(), name);
    there.failed
}
