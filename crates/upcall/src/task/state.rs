//! The state of a task: one word, changed by single atomic steps.
//!
//! | bit | set by | meaning |
//! |---|---|---|
//! | `EXECUTOR` | the starter | the executor's handle is in the cell |
//! | `CANCELLED` | the first canceller | the end of the operation was asked for |
//! | `ENDED` | the operation's end, once | status and outcome stay from now on |
//! | `WATCHED` | a waiter, before it sleeps | somebody is to be told of changes |
//! | `COMPLETED` | whoever calls the completion | its call has begun |
//! | `TAKEN` | whoever takes the value | the value is not in the cell any more |
//!
//! The bits above `STATUS` have the status since `ENDED`.
//!
//! Rule: **one step decides who owns a part of the cell.** The executor's handle belongs to the
//! canceller that came before the end, or to the end; to the starter, if either came before
//! `EXECUTOR`. The completion belongs to the first to set `COMPLETED`, the value to the first to
//! set `TAKEN`. loom checks every order of these steps (`model.rs`).

use super::TaskStatus;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const EXECUTOR: u32 = 1;
const CANCELLED: u32 = 1 << 1;
const ENDED: u32 = 1 << 2;
const WATCHED: u32 = 1 << 3;
const COMPLETED: u32 = 1 << 4;
const TAKEN: u32 = 1 << 5;
/// The position of the status.
const STATUS: u32 = 8;

pub(super) struct State(AtomicU32);

/// The claim to the executor's handle after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Somebody else, or nobody yet.
    Others,
    /// The caller: the operation was cancelled, and is to be ended by the handle.
    ToCancel,
    /// The caller: the operation has ended, and the handle is of no use.
    ToDrop,
}

/// What remains to be done after the end of an operation.
pub(super) struct End {
    pub executor: Claim,
    /// Whether the caller has to wake the task's watchers.
    pub is_watched: bool,
}

impl State {
    /// The state of a running operation.
    pub fn running() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The state of an operation that ended before anybody knew of it.
    pub fn ended(status: TaskStatus) -> Self {
        Self(AtomicU32::new(ENDED | (status as u32) << STATUS))
    }

    /// As [`ended`](Self::ended), but the completion is the caller's.
    pub fn completed(status: TaskStatus) -> Self {
        Self(AtomicU32::new(COMPLETED | ENDED | (status as u32) << STATUS))
    }

    /// Publishes the executor's handle, written by the caller.
    pub fn set_executor(&self) -> Claim {
        match self.0.fetch_or(EXECUTOR, AcqRel) {
            before if before & ENDED != 0 => Claim::ToDrop,
            before if before & CANCELLED != 0 => Claim::ToCancel,
            _ => Claim::Others,
        }
    }

    /// Asks for the operation's end.
    pub fn cancel(&self) -> Claim {
        match self.0.fetch_or(CANCELLED, AcqRel) {
            before if before & (CANCELLED | ENDED) != 0 || before & EXECUTOR == 0 => Claim::Others,
            _ => Claim::ToCancel,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed) & CANCELLED != 0
    }

    /// Publishes the outcome, written by the caller. The operation calls this once.
    pub fn end(&self, status: TaskStatus) -> End {
        let before = self.0.fetch_or(ENDED | (status as u32) << STATUS, AcqRel);
        let executor = if before & (EXECUTOR | CANCELLED) == EXECUTOR {
            Claim::ToDrop
        } else {
            // The canceller has it, or the starter has not published it.
            Claim::Others
        };
        End { executor, is_watched: before & WATCHED != 0 }
    }

    /// The status; `None` while the operation has not ended.
    #[inline]
    pub fn status(&self) -> Option<TaskStatus> {
        let state = self.0.load(Acquire);
        (state & ENDED != 0).then(|| TaskStatus::of(state >> STATUS))
    }

    /// Has the end tell the task's watchers. Returns whether the operation has ended already.
    pub fn watch(&self) -> bool {
        self.0.fetch_or(WATCHED, AcqRel) & ENDED != 0
    }

    pub fn is_watched(&self) -> bool {
        self.0.load(Relaxed) & WATCHED != 0
    }

    /// Claims the completion. Returns whether the caller is to call it.
    pub fn complete(&self) -> bool {
        self.0.fetch_or(COMPLETED, AcqRel) & COMPLETED == 0
    }

    /// Claims the value. Returns whether it is the caller's.
    pub fn take(&self) -> bool {
        self.0.fetch_or(TAKEN, AcqRel) & TAKEN == 0
    }

    /// Gives the value back, which the caller has claimed.
    pub fn put_back(&self) {
        self.0.fetch_and(!TAKEN, AcqRel);
    }
}
