//! More stack for Rust code that is about to need it.

use std::panic::resume_unwind;

use stackbounds::for_upcall::verify;
use stackbounds::stack_pointer;

use super::Refusal;
use super::placement::Pooled;
use super::thunk::{Body, Thunk};
use crate::config::stack_margin;
use crate::thread::{Attached, Payload, ThreadState};

/// Runs `f` with at least `bytes` bytes of stack below it.
///
/// If so much stack certainly remains, `f` runs in place, else on a pooled stack. Use this for
/// recursion that may be deep, on any thread and in any upcall.
///
/// ```
/// fn sum(numbers: &[u64]) -> u64 {
///     upcall::with_stack(64 * 1024, || match numbers {
///         [] => 0,
///         [first, rest @ ..] => first + sum(rest),
///     })
/// }
/// assert_eq!(sum(&vec![1; 100_000]), 100_000);
/// ```
///
/// A call in place costs about as much as asking for the bounds of the stack. A pooled stack is
/// kept for the next use, with its touched pages, within the limit of
/// [`Config::idle_stacks`](crate::Config::idle_stacks).
///
/// # Panics
/// If `f` panics, or if no stack can be had: there is no memory for one of that size, or the call
/// comes from an undescribed stack and [too many](Refusal::TooManyOpen) upcalls from such stacks
/// are open.
///
/// # Aborts
/// If `f` returns on another thread, because a host moved a suspended stack.
#[inline]
pub fn with_stack<R>(bytes: usize, f: impl FnOnce() -> R) -> R {
    let sp = stack_pointer();
    if has_room(sp, bytes) {
        return f();
    }
    let mut thunk = Thunk::new(f);
    // SAFETY: the thunk is new: it has neither run nor given away a body.
    let body = unsafe { thunk.body() };
    match on_larger(bytes, sp, body) {
        // SAFETY: the body ran and did not panic, so there is a result.
        Ok(None) => unsafe { thunk.result() },
        Ok(Some(payload)) => resume_unwind(payload),
        Err(refusal) => {
            // SAFETY: a refused body was not run.
            unsafe { thunk.drop_unrun() };
            panic!("with_stack: {refusal}")
        }
    }
}

/// Whether there are `bytes` bytes below `sp`; on the thread's own stack, with the margin below
/// them.
#[inline]
fn has_room(sp: usize, bytes: usize) -> bool {
    let thread = ThreadState::current();
    if thread.owns(sp) && thread.usable_below(sp) >= bytes {
        return true;
    }
    looks_for_room(sp, bytes)
}

#[inline(never)]
fn looks_for_room(sp: usize, bytes: usize) -> bool {
    let margin = stack_margin();
    match verify(sp, bytes.saturating_add(margin)) {
        Some((own, verified)) => {
            let usable_from = verified.max(own.low().saturating_add(margin));
            sp.saturating_sub(usable_from) >= bytes
        }
        None => stackbounds::at(sp).room_below(sp).is_some_and(|remaining| remaining >= bytes),
    }
}

/// Runs `body` on a pooled stack. Returns the panic of `body`, if it panicked.
#[inline(never)]
fn on_larger(bytes: usize, sp: usize, body: Body<'_>) -> Result<Option<Payload>, Refusal> {
    let thread = ThreadState::current();
    let _attached = Attached::new(thread, sp);
    let pooled = Pooled::take(thread, bytes, sp, &stackbounds::at(sp));
    pooled.map(|pooled| pooled.run(thread, body, |payload| payload))
}
