//! The process as a whole: loading of the library, and forks.
//!
//! A constructor runs when the library is loaded, before any other thread can be in it. It pins the
//! library, so `dlclose` cannot remove code to which threads will return. It also registers the
//! fork handlers.

pub(crate) mod fork;
mod sys;

#[cfg(feature = "runtime")]
pub(crate) use sys::{Mask, block_signals, set_signal_mask, signal_mask, with_signal_mask};
pub(crate) use sys::{
    block_sigpipe, keep_constructor, sigpipe_is_pending, take_sigpipe, unblock_sigpipe, with_signals_blocked,
};
