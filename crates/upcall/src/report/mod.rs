//! Reports on the process: [`snapshot`](crate::snapshot) of all calls and stacks, and reports of
//! faults.

mod chain;
mod fault;
mod faults;
mod overflowed;
pub(crate) mod snapshot;
mod text;
mod tree;
pub(crate) mod users;

pub use faults::install;
pub(crate) use faults::lock_word;
pub use snapshot::{
    Call, Direction, FiberState, Snapshot, Stack, StackKind, SuspendedCoroutine, Thread, Wait,
};
