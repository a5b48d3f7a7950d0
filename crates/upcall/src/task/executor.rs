//! The executor of a task's operation: our workers, a `LocalRuntime`, or tokio.

use crate::runtime::operation::Operation;

/// The handle on a running operation.
pub(super) enum Executor {
    Ours(Operation),
    #[cfg(feature = "tokio")]
    Tokio(tokio::task::AbortHandle),
}

impl Executor {
    /// Ends the operation: its executor drops the future.
    pub fn cancel(self) {
        match self {
            Self::Ours(operation) => operation.cancel(),
            #[cfg(feature = "tokio")]
            Self::Tokio(handle) => handle.abort(),
        }
    }
}
