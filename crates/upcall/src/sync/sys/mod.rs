//! Sleeping on a number.
//!
//! Contract: `while_is(number, value, deadline)` returns at once if `number` is not `value`, else when `wake(number)` is called after
//! it was changed, when the deadline has passed, or for no reason; false only for the deadline. `wake` wakes one sleeper at least.

#[cfg(all(not(upcall_loom), target_os = "linux"))]
#[path = "linux.rs"]
mod selected;

#[cfg(all(not(upcall_loom), not(target_os = "linux")))]
#[path = "generic.rs"]
mod selected;

#[cfg(upcall_loom)]
#[path = "loom.rs"]
mod selected;

pub(crate) use selected::{wake, while_is};
