//! Two libraries in one: each has its functions under its own names. They share one copy of upcall.

pub use {geo, map};
