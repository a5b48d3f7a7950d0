//! Variables that each fiber has a value of.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::quiet::Quiet;

/// The values of a fiber's own variables, each with the address of its key.
pub(crate) type Locals = VecDeque<(usize, Box<dyn Any>)>;

/// Drops them in the order in which they were made, and returns the first panic of a destructor. Destructors may use those that are left, and
/// make others; but not for ever.
#[inline]
pub(crate) fn drop_locals(locals: &RefCell<Locals>) -> std::thread::Result<()> {
    const MOST: usize = 10_000;
    let mut result = Ok(());
    for _ in 0..MOST {
        let Some(first) = locals.borrow_mut().pop_front() else { break };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(first)));
        if let (Ok(()), Err(_)) = (&result, &dropped) {
            result = dropped;
        } else {
            drop(Quiet::new(dropped));
        }
    }
    result
}
