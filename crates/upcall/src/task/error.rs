//! The errors of tasks: why one did not start, and why one gave no value.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::handle::HandleError;
use crate::runtime::Refused;

/// Why a task gave no value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The operation has not ended.
    NotDone,
    /// The operation returned an error.
    Failed(Arc<dyn Error + Send + Sync>),
    /// The operation panicked, with this message.
    Panicked(String),
    /// C cancelled the task.
    Cancelled,
    /// The deadline came first.
    DeadlineExceeded,
    /// The executor has ended, or runs only in the process from which this one was forked.
    Lost,
    /// The value was taken before.
    Taken,
    /// The value is of another type.
    WrongType {
        /// The type expected by the caller.
        expected: &'static str,
    },
    /// The result does not come in parts.
    NoParts,
    /// The handle leads to no task.
    Handle(HandleError),
}

impl fmt::Display for TaskError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDone => out.write_str("the task has not ended: wait for it (task_wait), or for its completion"),
            Self::Failed(error) => error.fmt(out),
            Self::Panicked(message) => write!(out, "the task panicked: {message}"),
            Self::Cancelled => out.write_str("the task was cancelled"),
            Self::DeadlineExceeded => out.write_str("the task did not end before its deadline"),
            Self::Lost => out.write_str(
                "the task's executor has ended: by a shutdown, by the end of its LocalRuntime, or because only the process that this one was forked \
                 from has it",
            ),
            Self::Taken => out.write_str("the task's value was taken already: it can be taken once"),
            Self::WrongType { expected } => {
                write!(out, "the task's value is not of type {expected}: take it by the function that belongs to the one that started the task")
            }
            Self::NoParts => out.write_str("the task's result does not come in parts: take its value"),
            Self::Handle(error) => error.fmt(out),
        }
    }
}

impl Error for TaskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // `Display` gives the text of the error itself.
            Self::Failed(error) => error.source(),
            _ => None,
        }
    }
}

impl From<HandleError> for TaskError {
    fn from(error: HandleError) -> Self {
        Self::Handle(error)
    }
}

/// Why a task did not start. Its future has been dropped, and its completion is not called.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// As many tasks as [`Config::running_tasks`](crate::Config::running_tasks) allows are running.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// [`shutdown`](crate::shutdown) has been called. A [`LocalRuntime`](crate::LocalRuntime) still
    /// takes tasks.
    ShutDown,
    /// No worker thread could be started.
    NoThread(io::Error),
    /// The thread has no [`LocalRuntime`](crate::LocalRuntime).
    NoRuntime,
    /// The caller is in a signal handler, or an allocator. It has interrupted code that may hold a
    /// lock.
    Interrupts,
}

impl From<Refused> for StartError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Self::ShutDown,
            Refused::NoThread(error) => Self::NoThread(error),
            Refused::Interrupts => Self::Interrupts,
            Refused::NoRuntime | Refused::RuntimeEnded => Self::NoRuntime,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit } => write!(
                out,
                "the task was not started: {limit} are running, which is the limit (Config::running_tasks, UPCALL_RUNNING_TASKS); wait for one to end"
            ),
            Self::ShutDown => {
                out.write_str("the task was not started: upcall::shutdown has been called, after which nothing is started any more")
            }
            Self::NoThread(error) => {
                write!(out, "the task was not started: no worker thread could be started: {error}")
            }
            Self::NoRuntime => out.write_str(
                "the task was not started: this thread has no LocalRuntime; make one (Fibers::local_runtime, or local_begin in C)",
            ),
            Self::Interrupts => out.write_str(
                "the task was not started: a signal handler, or an allocator, has called in the middle of upcall's own code; \
                 have the handler wake a task that starts another one",
            ),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoThread(error) => Some(error),
            _ => None,
        }
    }
}
