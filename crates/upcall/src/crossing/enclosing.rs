//! Which open downcall encloses an upcall: asked when the upcall has panicked, never on the warm path.
//!
//! The thread's newest downcall will not do: its coroutine may be suspended while another one calls, or C may have left it by `longjmp`. Addresses alone
//! will not do either: hosts copy stacks. So a call counts only while its number is where its [`Frame`](crate::thread::Frame) was, and then:
//!
//! 1. Walking the frames above the upcall, through our switches and the C frames in between, passes the downcall's: a frame of the function that makes
//!    it, at the SP that it was made at, which has the number. Numbers alone will not do, since a frame has places that its function has not written yet,
//!    where others' are that were there before. The walk ends where a coroutine begins, or at C code without unwind tables.
//! 2. Beyond the end of the walk, frames of one stack are still nested: on a stack whose bounds are exact, the innermost downcall that is there.
//! 3. The upcall came from a coroutine, and a downcall is open on the thread's own stack. Whoever resumed the
//!    coroutine, the thread's own stack is beneath, so its innermost downcall encloses the upcall. Downcalls of other coroutines
//!    between the two, if any, are passed over: which of them are suspended cannot be known.
//!
//! So it cannot be known, and the newest that seems to be there is taken: beyond the end of the walk, whether C has left a call by `longjmp` whose frame is
//! as it was; and in a function that makes several downcalls, or has not made its own yet, whether one is its, or was made by the same function, at the same
//! SP, in a frame that was there before.
//!
//! The upcall may belong to a fiber: it came from one of the fiber's stacks, or from a coroutine of C that the fiber called. Then only downcalls
//! on the fiber's stacks count: what is beneath the fiber is whoever polls it, and has nothing to do with its calls.

use std::cmp::Reverse;
use std::ffi::c_void;
use std::mem::replace;
use std::sync::atomic::Ordering::Relaxed;

use crate::stack::coroutine::Running;
use crate::stack::{Control, Mark, control_at};
use crate::thread::{Hot, OpenCall, Record};

/// The open downcall that encloses the upcall which began at `upcall_sp`.
pub(super) fn of_upcall(hot: &Hot, upcall_sp: usize) -> Option<&OpenCall> {
    let record = hot.record()?;
    record.open_calls().next()?;
    if let Some(fiber) = control_at(upcall_sp).and_then(Control::fiber) {
        return of_fiber(record, fiber, hot.mark(), upcall_sp);
    }
    let walk = walk(record, upcall_sp, |_| true);
    if walk.found.is_some() {
        return walk.found;
    }
    let stack = stackbounds::at(upcall_sp);
    if stack.is_exact() {
        let beyond = |call: &OpenCall| {
            let c_sp = call.own_c_sp(hot.mark());
            stack.contains(c_sp) && c_sp >= walk.walked_to && is_there(call)
        };
        if let Some(call) = newest(record, beyond) {
            return Some(call);
        }
    }
    if hot.owns(upcall_sp) {
        return None;
    }
    // SAFETY: null, or the stack of the fiber that runs, which is not given back meanwhile.
    if let Some(stack) = unsafe { hot.fiber.get().as_ref() } {
        // Whoever polled it did so on the thread's own stack, or a fiber did of which this is true, so that it is beneath whatever coroutine runs now.
        let mut polled_at = stack.system_sp.load(Relaxed);
        while let Some(poller) = control_at(polled_at).and_then(Control::fiber) {
            polled_at = poller.polled_at();
        }
        if hot.owns(polled_at) {
            let fiber = stack.fiber()?;
            return newest(record, |call| fiber.stack_with(call.rust_sp()).is_some());
        }
    }
    newest(record, |call| hot.owns(call.own_c_sp(hot.mark())) && is_there(call))
}

/// The same for an upcall from one of the fiber's stacks.
fn of_fiber<'a>(record: &'a Record, fiber: &Running, mark: Mark, upcall_sp: usize) -> Option<&'a OpenCall> {
    let its = |call: &OpenCall| fiber.stack_with(call.rust_sp());
    let walk = walk(record, upcall_sp, |call| its(call).is_some());
    if walk.found.is_some() {
        return walk.found;
    }
    // Where C began, if that is a stack of the fiber's; C that it left for began beneath all of them.
    let place = |call: &OpenCall| {
        let c_sp = call.own_c_sp(mark);
        fiber.stack_with(c_sp).map_or_else(|| Some((its(call)?, call.rust_sp())), |stack| Some((stack, c_sp)))
    };
    let least = (fiber.stack_with(upcall_sp)?, walk.walked_to);
    newest(record, |call| its(call).is_some() && place(call) >= Some(least) && is_there(call))
}

/// Whether the call's frame is where it was, which is on a stack of this thread that is in use: where the host copies stacks, another call's may be
/// there, or nobody's.
fn is_there(call: &OpenCall) -> bool {
    const SIZE: usize = 16 << 10;
    let end = stackbounds::at(call.rust_sp()).high().min(call.rust_sp() + SIZE);
    // SAFETY: the caller found that its C code is on a stack in use. Its Rust code was there too, or on a stack of ours, which stays mapped; the end is
    // respected.
    unsafe { call.frame_is_in(call.rust_sp(), end) }
}

/// Whether the function whose code begins at `start` makes the call where SP is `sp`, as far as can be told.
fn is_of(call: &OpenCall, start: usize, sp: usize) -> bool {
    // A compiler may push what it passes to C.
    const PUSHED: usize = 128;
    // SAFETY: looks the address up in tables.
    let begins = |code| unsafe { _Unwind_FindEnclosingFunction(code as *mut c_void) } as usize;
    call.code().is_none_or(|code| call.rust_sp().wrapping_sub(sp) < PUSHED && begins(code) == start)
}

/// The newest of the open calls that qualify: of nested ones, the innermost.
fn newest(record: &Record, qualifies: impl Fn(&OpenCall) -> bool) -> Option<&OpenCall> {
    record.open_calls().filter(|call| qualifies(call)).max_by_key(|call| call.serial())
}

/// Of the open calls that qualify, in one frame, the one that was made nearest to its end; of these, the newest.
fn nearest(record: &Record, qualifies: impl Fn(&OpenCall) -> bool) -> Option<&OpenCall> {
    let qualified = record.open_calls().filter(|call| qualifies(call));
    qualified.max_by_key(|call| (Reverse(call.rust_sp()), call.serial()))
}

// The Itanium C++ ABI's level I unwinding interface, which Rust's standard library links on every Unix.
unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        step: extern "C-unwind" fn(*mut c_void, *mut c_void) -> i32,
        state: *mut c_void,
    ) -> i32;
    fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
    fn _Unwind_GetRegionStart(frame: *mut c_void) -> usize;
    fn _Unwind_FindEnclosingFunction(address: *mut c_void) -> *mut c_void;
}

/// `_URC_NO_REASON`: go on.
const GO_ON: i32 = 0;
/// `_URC_NORMAL_STOP`.
const STOP: i32 = 4;

struct Walk<'a, F> {
    record: &'a Record,
    counts: F,
    upcall_sp: usize,
    /// SP of the last frame: what it will be again when what it called returns.
    last: usize,
    /// Where its function's code begins.
    code: usize,
    /// The frame of the function that made the upcall has been passed.
    outside: bool,
    /// How far up the stack that the upcall came from.
    walked_to: usize,
    /// All so far was on that stack.
    on_its_stack: bool,
    /// A call in the very function that made the upcall, without C in between; or what a call that was left there has left in its frame. Taken if
    /// there is no other.
    in_its_frame: Option<&'a OpenCall>,
    found: Option<&'a OpenCall>,
}

/// Looks for the first open downcall that counts whose frame lies above the upcall's entry in the chain of frames.
fn walk<F: Fn(&OpenCall) -> bool>(record: &Record, upcall_sp: usize, counts: F) -> Walk<'_, F> {
    extern "C-unwind" fn step<F: Fn(&OpenCall) -> bool>(frame: *mut c_void, state: *mut c_void) -> i32 {
        // SAFETY: `walk` passes its own `Walk`, and the unwinder a frame that is valid for this call.
        let (walk, sp, code) =
            unsafe { (&mut *state.cast::<Walk<F>>(), _Unwind_GetCFA(frame), _Unwind_GetRegionStart(frame)) };
        walk.step(sp, code)
    }
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
    // SAFETY: `step` matches the interface's callback, and `walk` outlives the call.
    unsafe { _Unwind_Backtrace(step::<F>, (&raw mut walk).cast()) };
    walk.found = walk.found.or(walk.in_its_frame);
    walk
}

impl<F: Fn(&OpenCall) -> bool> Walk<'_, F> {
    /// The last frame ends at `sp`, which is that of the next.
    fn step(&mut self, sp: usize, code: usize) -> i32 {
        let (last, from) = (self.last, stackbounds::at(self.last));
        let to = stackbounds::at(sp);
        self.last = sp;
        let function = replace(&mut self.code, code);
        // Two frames follow each other on one stack, unless one of our switches lies between them; then at least
        // one of the two is on a pooled stack, whose bounds are exact.
        let same_stack = last < sp && if from.is_exact() { from == to } else { !to.is_exact() };
        let is_its_frame = !self.outside && same_stack && (last..sp).contains(&self.upcall_sp);
        self.outside |= is_its_frame;
        if !self.outside {
            return GO_ON;
        }
        self.on_its_stack &= same_stack;
        if self.on_its_stack {
            self.walked_to = sp;
        }
        let encloses = |call: &OpenCall| {
            // SAFETY: asked only where `last..sp` is one frame of this thread, which the walk has come through.
            is_of(call, function, last) && unsafe { call.frame_is_in(last, sp) } && (self.counts)(call)
        };
        let found = if same_stack { nearest(self.record, encloses) } else { None };
        if is_its_frame {
            self.in_its_frame = found.filter(|call| call.rust_sp() >= self.upcall_sp);
            return GO_ON;
        }
        self.found = found;
        if found.is_some() { STOP } else { GO_ON }
    }
}
