//! Which open downcall encloses an upcall: asked when the upcall has panicked, never on the warm path.
//!
//! The upcall may belong to a fiber: it came from one of the fiber's stacks, or from a coroutine of C that the fiber called. Then the
//! innermost downcall on the fiber's stacks encloses it, or none: what is beneath the fiber is whoever polls it, and has nothing to do with
//! its calls.
//!
//! Otherwise, the thread's newest downcall will not do: its coroutine may be suspended while another one calls. What is certain is used,
//! in this order:
//!
//! 1. The upcall came from the thread's own stack, or a registered one: frames of one stack are nested, so the nearest
//!    downcall above it on that stack encloses it.
//! 2. Walking the frames above the upcall, through our switches and the C frames in between, passes the frame of a downcall. The walk
//!    ends where a coroutine begins, or at C code without unwind tables.
//! 3. The upcall came from a coroutine, and a downcall is open on the thread's own stack. Whoever resumed the
//!    coroutine, the thread's own stack is beneath, so its innermost downcall encloses the upcall. Downcalls of other coroutines
//!    between the two, if any, are passed over: which of them are suspended cannot be known.

use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;

use crate::stack::coroutine::Running;
use crate::stack::{Control, control_at};
use crate::thread::{Hot, OpenCall, Record};

/// The open downcall that encloses the upcall which began at `upcall_sp`.
pub(super) fn of_upcall(hot: &Hot, upcall_sp: usize) -> Option<&OpenCall> {
    let record = hot.record()?;
    record.open_calls().next()?;
    if let Some(fiber) = control_at(upcall_sp).and_then(Control::fiber) {
        return of_fiber(record, fiber, upcall_sp);
    }
    let stack = stackbounds::at(upcall_sp);
    if stack.is_exact() {
        let here = |call: &OpenCall| {
            let c_sp = c_sp(call);
            (stack.contains(c_sp) && c_sp >= upcall_sp).then_some(c_sp)
        };
        if let Some(call) = nearest(record, here) {
            return Some(call);
        }
    }
    walk(record, upcall_sp).or_else(|| {
        if hot.owns(upcall_sp) {
            return None;
        }
        // SAFETY: null, or the stack of the fiber that runs, which is not given back meanwhile.
        if let Some(stack) = unsafe { hot.fiber.get().as_ref() } {
            // Whoever polled it did so on the thread's own stack, so that it is beneath whatever coroutine runs now.
            if hot.owns(stack.system_sp.load(Relaxed)) {
                return of_fiber(record, stack.fiber()?, 0);
            }
        }
        nearest(record, |call| Some(c_sp(call)).filter(|&c_sp| hot.owns(c_sp)))
    })
}

/// The innermost open call on the fiber's stacks that is not below `upcall_sp`, if that is on one of them.
fn of_fiber<'a>(record: &'a Record, fiber: &Running, upcall_sp: usize) -> Option<&'a OpenCall> {
    let least = fiber.stack_with(upcall_sp).map_or((0, 0), |stack| (stack, upcall_sp));
    let places = record.open_calls().filter_map(|call| {
        let place = (fiber.stack_with(call.rust_sp())?, call.rust_sp());
        (place >= least).then_some((place, call))
    });
    places.min_by_key(|(place, _)| *place).map(|(_, call)| call)
}

/// Where the C code of a call of this thread began.
fn c_sp(call: &OpenCall) -> usize {
    call.c_sp(|rust_sp| Some(control_at(rust_sp)?.system_sp.load(Relaxed)))
}

/// The open call with the lowest address of those that `address` gives one for.
fn nearest(record: &Record, address: impl Fn(&OpenCall) -> Option<usize>) -> Option<&OpenCall> {
    let addressed = record.open_calls().filter_map(|call| Some((address(call)?, call)));
    addressed.min_by_key(|(address, _)| *address).map(|(_, call)| call)
}

// The Itanium C++ ABI's level I unwinding interface, which Rust's standard library links on every Unix.
unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(
        step: extern "C-unwind" fn(*mut c_void, *mut c_void) -> i32,
        state: *mut c_void,
    ) -> i32;
    fn _Unwind_GetCFA(frame: *mut c_void) -> usize;
}

/// `_URC_NO_REASON`: go on.
const GO_ON: i32 = 0;
/// `_URC_NORMAL_STOP`.
const STOP: i32 = 4;

struct Walk<'a> {
    record: &'a Record,
    /// The upcall's frames have been left behind: SP at its entry was passed.
    outside: bool,
    upcall_sp: usize,
    /// The canonical frame address of the last frame: what SP was before it was called.
    last: usize,
    found: Option<&'a OpenCall>,
}

/// The first open downcall whose frame lies above the upcall's entry in the chain of frames.
fn walk(record: &Record, upcall_sp: usize) -> Option<&OpenCall> {
    extern "C-unwind" fn step(frame: *mut c_void, state: *mut c_void) -> i32 {
        // SAFETY: `walk` passes its own `Walk`, and the unwinder a frame that is valid for this call.
        let (walk, cfa) = unsafe { (&mut *state.cast::<Walk>(), _Unwind_GetCFA(frame)) };
        walk.step(cfa)
    }
    let mut state = Walk { record, outside: false, upcall_sp, last: 0, found: None };
    // SAFETY: `step` matches the interface's callback, and `state` outlives the call.
    unsafe { _Unwind_Backtrace(step, (&raw mut state).cast()) };
    state.found
}

impl Walk<'_> {
    fn step(&mut self, cfa: usize) -> i32 {
        let (last, from) = (self.last, stackbounds::at(self.last));
        let to = stackbounds::at(cfa);
        self.last = cfa;
        // Two frames follow each other on one stack, unless one of our switches lies between them; then at least
        // one of the two is on a pooled stack, whose bounds are exact.
        let same_stack = last < cfa && if from.is_exact() { from == to } else { !to.is_exact() };
        let passes = |sp: usize| same_stack && last <= sp && sp < cfa;
        // The frame that made the upcall may have made the downcall too, when no C code is in between.
        let least = if self.outside { 0 } else { self.upcall_sp };
        self.outside |= passes(self.upcall_sp);
        if !self.outside {
            return GO_ON;
        }
        let pooled = (!same_stack).then(|| control_at(cfa)).flatten();
        let enclosing = |call: &OpenCall| {
            let sp = call.rust_sp();
            (passes(sp) && sp >= least || pooled.is_some_and(|stack| stack.contains(sp))).then_some(sp)
        };
        self.found = nearest(self.record, enclosing);
        if self.found.is_some() { STOP } else { GO_ON }
    }
}
