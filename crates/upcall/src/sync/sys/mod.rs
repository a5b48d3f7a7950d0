//! Sleeping on a number: the function used by stackbounds' locks, or a stand-in for loom.

pub(crate) use stackbounds::for_upcall::Ended;
#[cfg(not(upcall_loom))]
pub(crate) use stackbounds::for_upcall::{sleep_while as while_is, wake};

#[cfg(upcall_loom)]
#[path = "loom.rs"]
mod selected;

#[cfg(upcall_loom)]
pub(crate) use selected::{wake, while_is};
