//! What is going on in the process: a [`snapshot`](crate::snapshot) of all calls, and a report when a stack overflows.

mod chain;
mod map;
mod overflow;
mod overflowed;
pub(crate) mod snapshot;
mod sys;
mod text;
mod tree;
pub(crate) mod users;

pub(crate) use overflow::hold_lock;
pub use overflow::install;
pub use snapshot::{Call, Direction, FiberState, Snapshot, Stack, StackKind, Thread, Wait};
