//! The frames of the calling thread, found by the unwinder of Rust's standard library or of the
//! system.

pub(crate) use crate::sys::isa::{function_at, walk};
