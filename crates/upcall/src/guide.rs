//! The guide, for authors of Rust libraries with a C interface.
//!
//! | chapter | |
//! |---|---|
//! | [`start`] | from `cargo new` to a C program that calls Rust, in ten minutes |
//! | [`life_of_a_call`] | the stack of each piece of code, and how to see it |
//! | [`stacks`] | the stack of your code: the caller's, pooled or registered; deep recursion |
//! | [`waiting`] | blocking and suspending; fibers, event loops, tokio, locks |
//! | [`errors`] | panics, refusals, foreign exceptions; C's return value, the way of a panic |
//! | [`callbacks`] | closures for C to call, Rust values for C to keep |
//! | [`checking_hosts`] | hosts that check stacks: Ruby, Python, JVM, PostgreSQL, collectors |
//! | [`processes`] | threads, fork, exit, `dlclose`, signals, `longjmp` |
//! | [`migrating`] | from `block_on`, from `stacker`, from `catch_unwind` by hand |
//! | [`hosts`] | the real hosts of the tests, and the pitfalls of each |
//! | [`limits`] | the things upcall does not do |
//! | [`tasks`] | asynchronous operations that C starts, waits for and cancels |
//! | [`windows`] | 64-bit Windows, which is experimental |
//! | [`bindings`] | for authors of bindings to C libraries for use by others |
//!
//! The examples are compiled and run with the crate's tests. If an example needs C, it calls
//! functions of C's standard library, or Rust functions with C's calling convention. For upcall
//! these are the same. This module exists for documentation and its tests only; it has no code of
//! the crate.

#[doc = include_str!("../guide/01-start.md")]
pub mod start {}

#[doc = include_str!("../guide/02-life-of-a-call.md")]
pub mod life_of_a_call {}

#[doc = include_str!("../guide/03-stacks.md")]
pub mod stacks {}

#[doc = include_str!("../guide/04-waiting.md")]
pub mod waiting {}

#[doc = include_str!("../guide/05-errors.md")]
pub mod errors {}

#[doc = include_str!("../guide/06-callbacks.md")]
pub mod callbacks {}

#[doc = include_str!("../guide/07-checking-hosts.md")]
pub mod checking_hosts {}

#[doc = include_str!("../guide/08-processes.md")]
pub mod processes {}

#[doc = include_str!("../guide/09-migrating.md")]
pub mod migrating {}

#[doc = include_str!("../guide/10-hosts.md")]
pub mod hosts {}

#[doc = include_str!("../guide/11-limits.md")]
pub mod limits {}

#[doc = include_str!("../guide/12-bindings.md")]
pub mod bindings {}

#[doc = include_str!("../guide/13-tasks.md")]
pub mod tasks {}

#[doc = include_str!("../guide/14-coroutines.md")]
pub mod coroutines {}

#[doc = include_str!("../guide/15-windows.md")]
pub mod windows {}
