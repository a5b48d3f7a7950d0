//! The crossing: C calls Rust, and Rust calls C back.
//!
//! The life of an upcall, naming the stack that each step is on:
//!
//! ```text
//! C calls an exported function                                          system stack
//! └─ enter                                                              system stack
//!    │    the thread's Hot, from thread-local storage
//!    ├─ SP on the thread's own stack, room ≥ min_stack                  → run in place
//!    └─ elsewhere: first, if the thread is new to us, attach            service stack
//!       ├─ SP on any exactly known stack, room ≥ min_stack              → run in place
//!       ├─ the entry insists on the caller's stack                      → run in place, or refuse
//!       └─ otherwise                                                    → take a pooled stack
//!          │    filling the thread's spares, when there are none        service stack
//!          └─ catch_unwind; a panic is seen to                          system stack or pooled stack
//!             └─ the Rust body
//!                ├─ wait: as told in `fiber/wait.rs`                      suspends a fiber, or parks the thread
//!                └─ downcall: noted in the thread's open calls
//!                   ├─ on_fiber, or C is on this stack already → call in place   the fiber's, where upcalls may suspend it
//!                   ├─ SP on any other pooled stack → switch back       system stack, below enter's frames
//!                   └─ otherwise            → call in place             the stack that it is on
//!                      └─ C … may switch stacks, and call us again
//!                   ←  same thread?  a panic left here by an upcall? → raise it
//!    ←  same thread?  the stack goes back to the thread's spares, or to the pool
//! ← value, or a Panicked after a panic or refusal; nothing of this call remains
//! ```
//!
//! Two rules. **An estimate never carries a promise**: in place needs exact bounds, or an entry that insists. **A return sets the
//! state from the frame that returns**, not from what the last call left behind: calls may return in any order. "Same thread?" is
//! asked wherever the host could have moved the stack: by every downcall, and by upcalls everywhere but on the thread's own stack.

mod attach;
mod body;
mod checked;
mod detach;
mod downcall;
mod enclosing;
pub mod export;
mod foreign;
mod panicked;
mod place;
mod with_stack;

use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};

use stackbounds::stack_pointer;

pub use attach::attach;
pub(crate) use checked::checked;
pub use detach::{InUse, detach};
pub use downcall::{downcall, downcall_on_fiber};
pub use panicked::{Panicked, Refusal};
pub use with_stack::with_stack;

use body::{Body, Slot};
use foreign::refusing;
use panicked::caught;
pub(crate) use panicked::message_of;
pub(crate) use place::from_pool;
use place::{From, Place, place};

use crate::function::Function;
use crate::quiet::quietly;
use crate::spans::{UpcallBody, What};
use crate::stack::{Control, service, switch};
use crate::thread::{Hot, Payload, record};

/// Which stack an upcall runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackChoice {
    /// The caller's where its bounds are exact and leave enough room; else a pooled one. The default.
    #[default]
    Auto,
    /// The caller's: for hosts that scan or check the stack that they gave us (Ruby, CPython, the JVM, PostgreSQL, Boehm GC).
    /// Refused where the bounds are exact and leave too little room. Where they are only estimated, nothing is promised.
    Caller,
    /// A pooled one, always.
    Pooled,
}

/// How one upcall is to be run: made by [`entry`], used up by [`Entry::enter`].
#[derive(Clone, Copy, Debug)]
#[must_use = "an entry does nothing until it is entered"]
pub struct Entry {
    choice: StackChoice,
    min_stack: Option<usize>,
}

/// An upcall with choices: [`enter`] is `entry().enter`.
///
/// ```
/// use upcall::StackChoice;
///
/// let sum = upcall::entry().stack(StackChoice::Pooled).min_stack(1 << 20).enter(|| 1 + 1)?;
/// assert_eq!(sum, 2);
/// # Ok::<(), upcall::Panicked>(())
/// ```
#[inline]
pub const fn entry() -> Entry {
    Entry { choice: StackChoice::Auto, min_stack: None }
}

/// Runs `f` as an upcall: wherever C is on whichever stack, with at least
/// [`min_stack`](crate::Config::min_stack) bytes (128 KiB) below `f`, and with its panics caught.
///
/// To be called first thing in an `extern "C"` function:
///
/// ```
/// #[unsafe(no_mangle)]
/// pub extern "C" fn parse_length(text: *const u8, len: usize) -> i64 {
///     upcall::enter(|| {
///         // SAFETY: the C side promises `len` readable bytes.
///         let text = unsafe { std::slice::from_raw_parts(text, len) };
///         std::str::from_utf8(text).unwrap().parse::<i64>().unwrap()
///     })
///     .unwrap_or(-1) // what C gets after a panic
/// }
/// # assert_eq!(parse_length(c"42".as_ptr().cast(), 2), 42);
/// ```
///
/// On the thread's own stack a call costs about what a plain call does, and no system call. The thread's first upcall
/// attaches it: its stack's bounds are asked for, and a record is made that its exit frees.
///
/// What the compiler inlines into the function that C calls, `f` too, has its frame on C's stack: large local arrays belong in a function marked
/// `#[inline(never)]`.
///
/// # Errors
/// When `f` panics, or is refused (see [`Refusal`]). A panic inside a [`downcall`] is also raised
/// there, when C has returned, with its original payload. The message is kept as the thread's last panic, which C reads by
/// `upcall_last_panic`.
///
/// # Aborts
/// When the call comes back on another thread than it began on, because the host moved a suspended coroutine there. On a thread's own stack, that is
/// noticed by downcalls only.
#[inline]
pub fn enter<R>(f: impl FnOnce() -> R) -> Result<R, Panicked> {
    entry().enter(f)
}

impl Entry {
    /// Chooses the stack.
    #[inline]
    pub const fn stack(mut self, choice: StackChoice) -> Self {
        self.choice = choice;
        self
    }

    /// The bytes of stack that this upcall needs, in place of the process's
    /// [`min_stack`](crate::Config::min_stack), or of 16 KiB with [`StackChoice::Caller`].
    #[inline]
    pub const fn min_stack(mut self, bytes: usize) -> Self {
        self.min_stack = Some(bytes);
        self
    }

    #[inline(always)]
    fn is_default(&self) -> bool {
        matches!(self.choice, StackChoice::Auto) && self.min_stack.is_none()
    }

    /// Runs `f` as an upcall; see [`enter`], whose errors and aborts are this one's too.
    #[inline]
    pub fn enter<R>(self, f: impl FnOnce() -> R) -> Result<R, Panicked> {
        let sp = stack_pointer();
        let hot = Hot::here();
        if self.is_default() && hot.has_room_at(sp) {
            let function = Function::with(&f);
            hot.begin_upcall(sp, function);
            let result = catch_unwind(AssertUnwindSafe(|| UpcallBody::run(function, || refusing(f))));
            hot.end_upcall();
            return result.map_err(|payload| caught(payload, sp));
        }
        let (result, failed) =
            if self.is_default() { elsewhere(hot, sp, f) } else { as_chosen(hot, sp, f, self) };
        match failed {
            // SAFETY: where nothing failed, there is a result, says `Ended`.
            None => Ok(unsafe { result.assume_init() }),
            Some(failed) => Err(failed),
        }
    }
}

/// An upcall without choices away from the thread's own stack. This and what follows need little stack themselves, since C may
/// have left 1 KiB; what needs more runs on a service stack.
#[inline(never)]
fn elsewhere<R, F: FnOnce() -> R>(hot: &'static Hot, sp: usize, f: F) -> Ended<R> {
    let spare = if hot.to_spare.holds(sp) {
        hot.take_spare()
    } else if hot.in_place.holds(sp) {
        return in_place(hot, sp, f);
    } else {
        None
    };
    let Some(stack) = spare else { return as_chosen(hot, sp, f, entry()) };
    let mut slot = Slot::of_upcall(f);
    hot.begin_upcall(sp, Function::of::<F>());
    // SAFETY: the slot is new.
    let run = || unsafe { slot.run() };
    let what = || upcall_of(Function::of::<F>());
    let failed = run_pooled(hot, stack, None, run, move |panic| caught(panic, sp), what);
    hot.put_spare(stack);
    hot.end_upcall();
    record::detach_if_exiting(hot);
    // SAFETY: that was its run.
    unsafe { ended(slot, failed) }
}

/// One from a stack with enough room, for a frame as large as that of `f` too.
#[inline(never)]
fn in_place<R, F: FnOnce() -> R>(hot: &'static Hot, sp: usize, f: F) -> Ended<R> {
    let function = Function::with(&f);
    hot.begin_upcall(sp, function);
    let what = || upcall_of(Function::of::<F>());
    let result = run_here(hot, || UpcallBody::run(function, || refusing(f)), what);
    let ended = match result {
        Ok(value) => (MaybeUninit::new(value), None),
        Err(panic) => (MaybeUninit::uninit(), Some(caught(panic, sp))),
    };
    hot.end_upcall();
    record::detach_if_exiting(hot);
    ended
}

#[inline(never)]
fn as_chosen<R, F: FnOnce() -> R>(hot: &'static Hot, sp: usize, f: F, entry: Entry) -> Ended<R> {
    let mut slot = Slot::of_upcall(f);
    // SAFETY: the slot is new.
    let body = unsafe { slot.body() };
    let failed = chosen(hot, sp, body, entry);
    // SAFETY: that was its run, or refusal.
    unsafe { ended(slot, failed) }
}

/// The result of an upcall, there if it did not fail; and the error, if it did. As small results travel in registers so, an upcall in place needs no
/// memory for one that is made elsewhere.
type Ended<R> = (MaybeUninit<R>, Option<Panicked>);

/// # Safety
/// The slot ran, and `failed` is its panic if it panicked; or it did not run, and `failed` is the refusal.
#[inline(always)]
unsafe fn ended<R, F: FnOnce() -> R>(slot: Slot<F, R, UpcallBody>, failed: Option<Panicked>) -> Ended<R> {
    let Some(error) = failed else {
        // SAFETY: it ran, says the caller, and did not fail: there is a result.
        return (MaybeUninit::new(unsafe { slot.result() }), None);
    };
    if error.refusal().is_some() {
        // SAFETY: what is refused is not run.
        quietly(|| unsafe { slot.drop_unrun() });
    }
    (MaybeUninit::uninit(), Some(error))
}

/// Any upcall: attaches the thread if it is new to us, and decides where the upcall runs.
#[inline(never)]
fn chosen(hot: &'static Hot, sp: usize, body: Body<'_>, entry: Entry) -> Option<Panicked> {
    // Before a thread is attached, which takes locks and allocates.
    let in_handler = hot.record().is_none().then(|| service::run(|| record::is_on_signal_stack(sp)));
    if in_handler == Some(true) {
        return Some(panicked::refused(hot, Refusal::SignalHandler));
    }
    record::attach_if_new(hot, sp);
    // What a signal handler interrupts goes on as it was.
    let (from, outer) = (From::at(sp, in_handler), hot.upcall.get());
    let failed = match place(hot, entry, &from) {
        Err(refusal) => Some(panicked::refused(hot, refusal)),
        Ok(place) => {
            let function = body.function;
            hot.begin_upcall(sp, function);
            let failed = match place {
                Place::Caller => {
                    let result = run_here(hot, || body.run(), || upcall_of(function));
                    result.err().map(|panic| caught(panic, sp))
                }
                Place::Pooled(pooled) => pooled.run(hot, body, |panic| caught(panic, sp)),
            };
            if from.is_signal_stack {
                hot.upcall.set(outer);
            } else {
                hot.end_upcall();
            }
            failed
        }
    };
    record::detach_if_exiting(hot);
    failed
}

/// Runs `run` in place, on a stack that the host may move to another thread. `what` tells what that is.
#[inline(always)]
fn run_here<R>(hot: &Hot, run: impl FnOnce() -> R, what: impl FnOnce() -> String) -> std::thread::Result<R> {
    let mark = hot.mark();
    let result = catch_unwind(AssertUnwindSafe(run));
    hot.check_same_thread(mark, what);
    result
}

fn upcall_of(function: Function) -> String {
    format!("the upcall of {function}")
}

/// Runs `run` on a pooled stack. `what` tells what that is. Downcalls continue at `system_sp`; `None` for below this frame. A panic is seen to there, by `caught`: of the
/// caller's stack there may be too little left.
#[inline(always)]
fn run_pooled<T>(
    hot: &Hot,
    stack: &'static Control,
    system_sp: Option<usize>,
    run: impl FnOnce(),
    caught: impl FnOnce(Payload) -> T,
    what: impl FnOnce() -> String,
) -> Option<T> {
    struct There<F, C, T> {
        run: ManuallyDrop<F>,
        caught: ManuallyDrop<C>,
        failed: Option<T>,
    }
    impl<F: FnOnce(), C: FnOnce(Payload) -> T, T> There<F, C, T> {
        /// # Safety
        /// Called once.
        #[inline(always)]
        unsafe fn run(&mut self) {
            // SAFETY: taken once, says the caller; and `caught` here only.
            let run = unsafe { ManuallyDrop::take(&mut self.run) };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                // SAFETY: as above.
                self.failed = Some(unsafe { ManuallyDrop::take(&mut self.caught) }(payload));
            }
        }
    }
    hot.pooled.set(stack);
    let mut there = There { run: ManuallyDrop::new(run), caught: ManuallyDrop::new(caught), failed: None };
    // What goes to the other stack is copied there: one pointer.
    let at = &mut there;
    // SAFETY: a switch runs what it is given once.
    switch::on_pooled(stack, system_sp, move || unsafe { at.run() });
    hot.check_same_thread(stack.mark.get(), what);
    there.failed
}
