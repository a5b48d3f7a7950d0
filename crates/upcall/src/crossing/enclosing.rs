//! The open downcall that encloses an upcall: looked up after a panic, never on the warm path.
//!
//! In this picture, upcall 2 panics, and the downcall of upcall 1 encloses it. High addresses are
//! at the top:
//!
//! ```text
//!     thread's own stack                                pooled stack
//!                                                         StackHeader: system_sp
//!   ┌──────────────────────────────┐ high             ┌──────────────────────────────┐ base
//!   │ C                            │                  │ catch_unwind                 │
//!   │ exported function 1: enter   │ ──── switch ───► │ Rust body of upcall 1        │
//!   ├──────────────────────────────┤ ◄─ c_sp,         ├──────────────────────────────┤
//!   │ C, called by the downcall    │    system_sp     │ function with the downcall   │
//!   │                              │ ◄─── switch ──── │   Frame: the call's number   │
//!   ├──────────────────────────────┤                  ├──────────────────────────────┤ ◄─ rust_sp
//!   │ exported function 2: enter   │                  │ free                         │
//!   ├──────────────────────────────┤ ◄─ upcall_sp     │                              │
//!   │ Rust body of upcall 2        │                  └──────────────────────────────┘ low
//!   └──────────────────────────────┘ low
//! ```
//!
//! - `upcall_sp` is SP in the function called by C.
//! - `rust_sp` is SP in the function with the downcall, the low end of its frame. The frame holds
//!   the call's number in a [`Frame`](crate::thread::Frame).
//! - `system_sp`, in the header of a pooled stack, is the start of C's frames for downcalls from
//!   there.
//! - `c_sp` is the start of this call's C frames: `system_sp`, or `rust_sp` if C runs in place.
//!
//! # The search
//!
//! The thread's newest downcall is not the answer: its coroutine may be suspended while another one
//! calls, or C may have abandoned it by `longjmp`. Addresses alone are not the answer either: hosts
//! copy stacks. So a call counts only while its number is still in its frame. The search has three
//! steps, and ends at the first result:
//!
//! 1. **Walk the frames** above the upcall, through our switches and the C frames in between. The
//!    result is the first downcall that fits a frame by its function, its `rust_sp` and its number.
//!    The number alone proves nothing: a frame has places not yet written by its function, with
//!    words of earlier frames in them. The walk ends at the start of a coroutine, or at C code
//!    without unwind tables.
//! 2. **Beyond the end of the walk**, frames of one stack are still nested. If the bounds of the
//!    upcall's stack are exact, the result is the innermost downcall with C frames there.
//! 3. **If the upcall came from a coroutine**, the result is the innermost downcall on the thread's
//!    own stack. This stack is beneath the coroutine, whoever resumed it. Downcalls of other
//!    coroutines in between are passed over: any of them may be suspended. The unwinding of a
//!    coroutine killed by the host ends without this step.
//!
//! # Stacks that move
//!
//! If the host has said that it copies the thread's own stack away and back, only the part of the
//! running coroutine is in its place. Walking on from its first frame would read remnants of other
//! frames, and take any of their words for an address. So no walk goes into such a stack. Instead,
//! the host names the running coroutine at each downcall to that stack, and at the search. The
//! result is the newest downcall of this coroutine with C frames above the upcall: on one
//! coroutine, calls are nested. If there is none, it is the newest one made outside all coroutines.
//!
//! # Limits
//!
//! Two things cannot be known. In both cases the search takes the newest call that seems live:
//!
//! - Beyond the end of the walk, C may have abandoned a call by `longjmp`, and its frame may be
//!   unchanged.
//! - A function may make several downcalls, or may not have made its own yet. A number in its frame
//!   may come from another of them, or from an earlier frame of the same function at the same SP.
//!
//! # Fibers
//!
//! An upcall belongs to a fiber if it came from one of the fiber's stacks, or from a coroutine of C
//! called by the fiber. Then only downcalls on the fiber's stacks count. Beneath the fiber is its
//! poller, and the poller has nothing to do with the fiber's calls.

use std::cmp::Reverse;
use std::mem::replace;
use std::sync::atomic::Ordering::Relaxed;

use crate::backtrace;
use crate::coroutine::FiberContext;
use crate::stack::{StackHeader, header_at};
use crate::thread::{OpenCall, Record, ThreadState};

/// How to treat a downcall in the very frame of the code that asks.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum OwnFrame {
    /// It encloses the code: this may run inside the downcall's closure.
    Counts,
    /// C has probably abandoned it. Where an upcall begins, C frames lie between it and its
    /// downcall, so a call in the same frame is a remnant of the same function. Taken if there is
    /// no other.
    Last,
}

/// How far to search if the upcall came from a coroutine.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reach {
    /// To its start: steps 1 and 2.
    Coroutine,
    /// To the thread's own stack.
    Beneath,
}

/// Whether a panic is pending at the downcall that encloses the code at `sp`. The code is in an
/// upcall, or about to begin one.
pub(super) fn has_panic(thread: &ThreadState, sp: usize, own_frame: OwnFrame) -> bool {
    let system_sp = |stack: &StackHeader| stack.system_sp.load(Relaxed);
    let came_from = if thread.owns(sp) { sp } else { header_at(sp).map_or(sp, system_sp) };
    of_code(thread, sp, came_from, own_frame, Reach::Beneath).is_some_and(OpenCall::has_pending_panic)
}

/// Finds the open downcall that encloses the upcall begun at `upcall_sp`.
pub(super) fn of_upcall(thread: &ThreadState, upcall_sp: usize, reach: Reach) -> Option<&OpenCall> {
    of_code(thread, upcall_sp, upcall_sp, OwnFrame::Last, reach)
}

/// Finds the open downcall that encloses the code at `upcall_sp`. If it is on a pooled stack,
/// `came_from` is SP at the entry of that stack; else it equals `upcall_sp`.
fn of_code(
    thread: &ThreadState,
    upcall_sp: usize,
    came_from: usize,
    own_frame: OwnFrame,
    reach: Reach,
) -> Option<&OpenCall> {
    let record = thread.record()?;
    record.open_calls().next()?;
    if let Some(fiber) = header_at(upcall_sp).and_then(StackHeader::fiber) {
        return of_fiber(record, fiber, thread, upcall_sp, own_frame);
    }
    if thread.stack_moves_at(came_from) {
        return on_moving_stack(thread, record, came_from, reach);
    }
    let walk = walk(thread, record, upcall_sp, own_frame, |_| true);
    if walk.found.is_some() {
        return walk.found;
    }
    let stack = stackbounds::at(came_from);
    if stack.is_exact() {
        let walked_to = if came_from == upcall_sp { walk.walked_to } else { came_from };
        let beyond = |call: &OpenCall| {
            let c_sp = call.own_c_sp(thread.id());
            stack.contains(c_sp) && c_sp >= walked_to && is_there(call)
        };
        if let Some(call) = newest(record, beyond) {
            return Some(call);
        }
    }
    if reach == Reach::Coroutine || thread.owns(came_from) {
        return None;
    }
    if let Some(stack) = thread.fiber_stack() {
        // If its poller is on the thread's own stack, directly or through other fibers, the fiber
        // is beneath any coroutine running now.
        let mut polled_at = stack.system_sp.load(Relaxed);
        while let Some(poller) = header_at(polled_at).and_then(StackHeader::fiber) {
            polled_at = poller.polled_at();
        }
        if thread.owns(polled_at) {
            let fiber = stack.fiber()?;
            return newest(record, |call| fiber.stack_with(call.rust_sp()).is_some());
        }
    }
    newest(record, |call| thread.owns(call.own_c_sp(thread.id())) && is_there(call))
}

/// Finds the open downcall that encloses an upcall from `came_from`, on a stack that moves.
///
/// A call in place there has no name, and its frame shows whether it is there.
fn on_moving_stack<'a>(
    thread: &ThreadState,
    record: &'a Record,
    came_from: usize,
    reach: Reach,
) -> Option<&'a OpenCall> {
    const NO_COROUTINE: usize = 0;
    let newest_of = |coroutine: usize| {
        newest(record, |call| {
            let c_sp = call.own_c_sp(thread.id());
            let is_its = || match call.coroutine() {
                Some(named) => named == coroutine,
                None => is_there(call),
            };
            thread.owns(c_sp) && c_sp >= came_from && is_its()
        })
    };
    let beneath = || if reach == Reach::Beneath { newest_of(NO_COROUTINE) } else { None };
    newest_of(thread.running_coroutine()).or_else(beneath)
}

/// Finds the open downcall that encloses an upcall from one of the fiber's stacks.
fn of_fiber<'a>(
    record: &'a Record,
    fiber: &FiberContext,
    thread: &ThreadState,
    upcall_sp: usize,
    own_frame: OwnFrame,
) -> Option<&'a OpenCall> {
    let id = thread.id();
    let its = |call: &OpenCall| fiber.stack_with(call.rust_sp());
    let walk = walk(thread, record, upcall_sp, own_frame, |call| its(call).is_some());
    if walk.found.is_some() {
        return walk.found;
    }
    // The place of C's first frame, if it is on one of the fiber's stacks. Otherwise C began
    // beneath all of them, and the place of the Rust frame counts.
    let place = |call: &OpenCall| {
        let c_sp = call.own_c_sp(id);
        fiber.stack_with(c_sp).map_or_else(|| Some((its(call)?, call.rust_sp())), |stack| Some((stack, c_sp)))
    };
    let least = (fiber.stack_with(upcall_sp)?, walk.walked_to);
    newest(record, |call| its(call).is_some() && place(call) >= Some(least) && is_there(call))
}

/// Whether the call's frame is still in its place. If the host copies stacks, another call's frame
/// may be there, or none.
fn is_there(call: &OpenCall) -> bool {
    const SIZE: usize = 16 << 10;
    let end = stackbounds::at(call.rust_sp()).high().min(call.rust_sp() + SIZE);
    // SAFETY: the callers found the call's C frames on a stack in use. Its Rust frame was there
    // too, or on a pooled stack, and pooled stacks stay mapped. The range ends with the stack.
    unsafe { call.frame_is_in(call.rust_sp(), end) }
}

/// Whether the function starting at `start` makes the call at SP `sp`, as far as can be told.
fn is_of(call: &OpenCall, start: usize, sp: usize) -> bool {
    // A compiler may push the arguments for C.
    const PUSHED: usize = 128;
    call.code()
        .is_none_or(|code| call.rust_sp().wrapping_sub(sp) < PUSHED && backtrace::function_at(code) == start)
}

/// The newest of the qualifying open calls: of nested ones, the innermost.
fn newest(record: &Record, qualifies: impl Fn(&OpenCall) -> bool) -> Option<&OpenCall> {
    record.open_calls().filter(|call| qualifies(call)).max_by_key(|call| call.serial())
}

/// Of the qualifying open calls in one frame, the one with the lowest SP; of several there, the
/// newest.
fn nearest(record: &Record, qualifies: impl Fn(&OpenCall) -> bool) -> Option<&OpenCall> {
    let qualified = record.open_calls().filter(|call| qualifies(call));
    qualified.max_by_key(|call| (Reverse(call.rust_sp()), call.serial()))
}

struct Walk<'a, F> {
    record: &'a Record,
    counts: F,
    upcall_sp: usize,
    /// SP in the last frame visited: its value after the return of the frame's callee.
    last: usize,
    /// Start of the last frame's function.
    code: usize,
    /// The walk has passed the frame of the function that made the upcall.
    outside: bool,
    /// The highest SP reached so far on the upcall's stack.
    walked_to: usize,
    /// All frames so far were on that stack.
    on_its_stack: bool,
    /// A call found in the frame of the upcall's own function: live without C frames in between, or
    /// a remnant of an abandoned call.
    in_its_frame: Option<&'a OpenCall>,
    found: Option<&'a OpenCall>,
}

/// Walks the frames above the upcall, up to the first with an open downcall that counts.
fn walk<'a, F>(
    thread: &ThreadState,
    record: &'a Record,
    upcall_sp: usize,
    own_frame: OwnFrame,
    counts: F,
) -> Walk<'a, F>
where
    F: Fn(&OpenCall) -> bool,
{
    let mut walk = Walk {
        record,
        counts,
        upcall_sp,
        last: 0,
        code: 0,
        outside: false,
        walked_to: upcall_sp,
        on_its_stack: true,
        in_its_frame: None,
        found: None,
    };
    backtrace::walk(&mut |frame| !thread.stack_moves_at(frame.sp) && walk.step(frame.sp, frame.function));
    walk.found = match own_frame {
        OwnFrame::Counts => walk.in_its_frame.or(walk.found),
        OwnFrame::Last => walk.found.or(walk.in_its_frame),
    };
    walk
}

impl<F: Fn(&OpenCall) -> bool> Walk<'_, F> {
    /// Visits the frame at `sp`, of the function starting at `code`. The last frame ends at `sp`.
    /// Returns whether to go on.
    fn step(&mut self, sp: usize, code: usize) -> bool {
        let (last, from) = (self.last, stackbounds::at(self.last));
        let to = stackbounds::at(sp);
        self.last = sp;
        let function = replace(&mut self.code, code);
        // Two consecutive frames are on one stack, unless one of our switches lies between them.
        // Then at least one of the two is on a pooled stack, and its bounds are exact.
        let same_stack = last < sp && if from.is_exact() { from == to } else { !to.is_exact() };
        let is_its_frame = !self.outside && same_stack && (last..sp).contains(&self.upcall_sp);
        self.outside |= is_its_frame;
        if !self.outside {
            return true;
        }
        self.on_its_stack &= same_stack;
        if self.on_its_stack {
            self.walked_to = sp;
        }
        let encloses = |call: &OpenCall| {
            // SAFETY: called only if `last..sp` is one frame of this thread, just visited by the
            // walk, so it can be read.
            is_of(call, function, last) && unsafe { call.frame_is_in(last, sp) } && (self.counts)(call)
        };
        let found = if same_stack { nearest(self.record, encloses) } else { None };
        if is_its_frame {
            self.in_its_frame = found.filter(|call| call.rust_sp() >= self.upcall_sp);
            return true;
        }
        self.found = found;
        found.is_none()
    }
}
