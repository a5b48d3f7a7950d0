//! Systems without a file of their own.

#[cfg(not(unix))]
pub use super::portable::*;
#[cfg(unix)]
pub use super::unix::*;
