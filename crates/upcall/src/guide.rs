//! The guide, for authors of Rust libraries that C calls. No code of the crate's: it is there for documentation and its tests only.
//!
//! | chapter | |
//! |---|---|
//! | [`start`] | from `cargo new` to a C program that calls Rust, in ten minutes |
//! | [`life_of_a_call`] | what runs on which stack, and how to look |
//! | [`stacks`] | which stack your code runs on: automatic, the caller's, a pooled one; registered stacks; deep recursion |
//! | [`waiting`] | what blocks and what suspends; fibers, event loops, tokio, locks |
//! | [`errors`] | panics, refusals, exceptions of others; what C gets and where a panic goes |
//! | [`callbacks`] | closures that C calls, values that C keeps |
//! | [`checking_hosts`] | hosts that scan or check their stacks: Ruby, Python, the JVM, PostgreSQL, collectors |
//! | [`processes`] | threads, fork, exit, `dlclose`, signals, `longjmp` |
//! | [`migrating`] | from `block_on`, from `stacker`, from `catch_unwind` by hand |
//! | [`hosts`] | the real hosts that the tests run, and what to watch for there |
//! | [`limits`] | what upcall does not do |
//!
//! The examples are compiled and run with the crate's tests. Where they need C, they take functions of its standard library, or functions of Rust's with
//! C's calling convention, which for upcall is the same.

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
