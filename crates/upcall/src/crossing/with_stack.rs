//! More stack for Rust code that is about to need it.

use std::panic::resume_unwind;

use stackbounds::stack_pointer;

use super::Refusal;
use super::body::{Body, Slot};
use super::place::Pooled;
use crate::thread::{Hot, Payload, record};

/// Runs `f` with at least `bytes` bytes of stack below it: in place where that much is certainly left, else on
/// a pooled stack. For recursion that is deep at times, on any thread and in any upcall.
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
/// A call that stays in place costs about what asking for the bounds does. A pooled stack is kept for the next use; above
/// 1 MiB it keeps its address space and gives its pages back.
///
/// # Panics
/// When `f` does, and when there is no memory for a stack of that size.
///
/// # Aborts
/// When `f` comes back on another thread than it began on, because a host moved a suspended stack.
#[inline]
pub fn with_stack<R>(bytes: usize, f: impl FnOnce() -> R) -> R {
    let sp = stack_pointer();
    if stackbounds::at(sp).room_below(sp).is_some_and(|left| left >= bytes) {
        return f();
    }
    let mut slot = Slot::new(f);
    // SAFETY: the slot is new.
    let body = unsafe { slot.body() };
    match on_larger(bytes, sp, body) {
        // SAFETY: it ran, and did not panic: there is a result.
        Ok(None) => unsafe { slot.result() },
        Ok(Some(payload)) => resume_unwind(payload),
        Err(refusal) => {
            // SAFETY: what is refused is not run.
            unsafe { slot.drop_unrun() };
            panic!("with_stack: {refusal}")
        }
    }
}

/// Runs `body` on a pooled stack; returns its panic, if it panicked.
#[inline(never)]
fn on_larger(bytes: usize, sp: usize, body: Body<'_>) -> Result<Option<Payload>, Refusal> {
    let hot = Hot::here();
    record::attach_if_new(hot, sp);
    let pooled = Pooled::take(hot, bytes, sp, &stackbounds::at(sp));
    let result = pooled.map(|pooled| pooled.run(hot, body, |payload| payload));
    record::detach_if_exiting(hot);
    result
}
