//! Fiber-local variables: their values for one fiber.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::drop_guards::IgnoreDropPanic;
use crate::messages::warn;

/// The values of one fiber's variables, each with the address of its key.
pub(crate) type Locals = VecDeque<(usize, Box<dyn Any>)>;

/// Drops the values in the order in which they were made. Returns the first panic of a destructor.
///
/// Destructors may use the remaining values and make new ones. After 10,000 drops, the remaining
/// values are leaked.
#[inline]
pub(crate) fn drop_locals(locals: &RefCell<Locals>) -> std::thread::Result<()> {
    const MOST: usize = 10_000;
    let mut result = Ok(());
    for _ in 0..MOST {
        let Some(first) = locals.borrow_mut().pop_front() else { return result };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(first)));
        if let (Ok(()), Err(_)) = (&result, &dropped) {
            result = dropped;
        } else {
            drop(IgnoreDropPanic::new(dropped));
        }
    }
    leak(locals.take(), MOST);
    result
}

#[cold]
fn leak(remaining: Locals, dropped: usize) {
    static REPORTED: AtomicBool = AtomicBool::new(false);
    if !remaining.is_empty() && !REPORTED.swap(true, Relaxed) {
        warn(format_args!(
            "{dropped} values of FiberLocal variables were dropped at the end of one fiber or thread, and there are still {}: their destructors make new ones. \
             What is remaining is leaked. A destructor must not use a variable that has been dropped; later cases are not reported",
            remaining.len()
        ));
    }
    std::mem::forget(remaining);
}
