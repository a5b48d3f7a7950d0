//! What happens to the process as a whole: its library is loaded, and it forks.
//!
//! A constructor of the library, which runs when it is loaded and before any other thread can be in it, keeps `dlclose` from taking the code away from
//! under threads that will come back to it, and asks to be told of forks.

pub(crate) mod fork;
mod sys;

pub(crate) use sys::keep_constructor;
