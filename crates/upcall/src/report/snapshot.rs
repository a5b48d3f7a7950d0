//! What is going on: every attached thread, its open calls, the pool.

use std::cmp::Reverse;
use std::fmt;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

use crate::stack::pool::{self, PoolUse};
use stackbounds::Kind;

use crate::thread::{Hot, Record, record, thread_name};

/// The state of the process at one moment; `Display` prints it as a tree, in which a call on another stack than the one before it begins a
/// new branch. Made by [`snapshot`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The attached threads, but those whose exit has begun.
    pub threads: Vec<Thread>,
    /// The stack pool.
    pub pool: PoolUse,
    /// Upcalls from undescribed stacks so far, if they are reported or refused.
    pub foreign_upcalls: usize,
}

/// One attached thread.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Thread {
    /// Its `pthread_t`, which debuggers show.
    pub id: usize,
    /// Its name, where the system tells it.
    pub name: Option<String>,
    /// Its own stack, `low..high`, if that is known.
    pub own_stack: Option<(usize, usize)>,
    /// Whether it is the one that took the snapshot.
    pub current: bool,
    /// Pooled stacks that it has for upcalls: those in use, by upcalls that may have been left by `longjmp` too, and a few idle ones.
    pub upcall_stacks: usize,
    /// How many downcalls were found to have been left by `longjmp`, so far.
    pub left_calls: usize,
    /// Its open calls: those on its own stack first, those on one stack from the outermost inwards.
    pub calls: Vec<Call>,
}

/// One call that has not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Which way it goes.
    pub direction: Direction,
    /// The stack pointer where the called side began.
    pub sp: usize,
    /// The kind of stack that `sp` is on.
    pub stack: StackKind,
}

/// How far apart two calls on one undescribed stack are likely to be at most.
pub(super) const NEAR: usize = 64 << 10;

impl Call {
    /// Whether the call was certainly or, on a stack that nobody described, very likely made under `other`: further down on the same stack.
    /// A call on another stack may have been made under any call.
    fn is_below(&self, other: &Call) -> bool {
        let near = self.stack == StackKind::Own || other.sp.wrapping_sub(self.sp) < NEAR;
        self.stack == other.stack && self.sp <= other.sp && near
    }
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// C called Rust.
    Upcall,
    /// Rust called C.
    Downcall,
}

/// Whose stack an address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StackKind {
    /// The thread's own.
    Own,
    /// One of ours.
    Pooled,
    /// One that the host registered.
    Registered,
    /// One that nobody described.
    Undescribed,
}

/// Takes stock of every attached thread, its open calls, and the pool.
///
/// Threads are not stopped. What another thread is doing meanwhile may be seen half-way: a call of its may be there that has just
/// returned. Takes the lock that threads attach and detach under.
///
/// ```
/// upcall::enter(|| {
///     upcall::downcall(|| {
///         let snapshot = upcall::snapshot();
///         println!("{snapshot}");
///         assert_eq!(snapshot.threads.iter().find(|t| t.current).unwrap().calls.len(), 2);
///     })
/// })?;
/// # Ok::<(), upcall::Panicked>(())
/// ```
pub fn snapshot() -> Snapshot {
    let mut threads = Vec::new();
    record::for_each(|record| threads.push(thread(record)));
    Snapshot { threads, pool: pool::usage(), foreign_upcalls: record::FOREIGN_UPCALLS.load(Relaxed) }
}

fn thread(record: &Record) -> Thread {
    // SAFETY: a record's Hot lives as long as its thread, which cannot detach, as `for_each` says. Of another thread's, only
    // atomic fields are read.
    let hot = unsafe { &*record.hot };
    let own_stack = hot.own_stack();
    let kind = |sp: usize| match own_stack {
        Some((low, high)) if low <= sp && sp < high => StackKind::Own,
        _ => match stackbounds::around(sp).map(|around| around.kind) {
            Some(Kind::Slot) => StackKind::Pooled,
            Some(Kind::Stack) => StackKind::Registered,
            _ => StackKind::Undescribed,
        },
    };
    let call = |direction, sp| Call { direction, sp, stack: kind(sp) };
    let mut calls = Vec::new();
    let mut upcalls = vec![hot.upcall_sp.load(Relaxed)];
    for open in record.open_calls() {
        calls.push(call(Direction::Downcall, open.c_sp(pool::system_sp_at)));
        upcalls.push(open.upcall_sp.load(Relaxed));
    }
    upcalls.sort_unstable();
    upcalls.dedup();
    calls.extend(upcalls.into_iter().filter(|&sp| sp != 0).map(|sp| call(Direction::Upcall, sp)));
    // The own stack first; on each stack from the outermost call inwards.
    calls.sort_by_key(|call| {
        (call.stack != StackKind::Own, Reverse(call.sp), call.direction == Direction::Downcall)
    });
    let current = ptr::eq(hot, Hot::here());
    let (id, name) = (record.thread_id, thread_name(record.thread_id));
    let (upcall_stacks, left_calls) = (hot.upcall_stacks(), hot.calls.reclaimed());
    Thread { id, name, own_stack, current, upcall_stacks, left_calls, calls }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = &self.pool;
        writeln!(
            out,
            "upcall {}: {} attached thread{}; pool: {} stacks handed out, {} idle, {} MiB of addresses",
            env!("CARGO_PKG_VERSION"),
            self.threads.len(),
            if self.threads.len() == 1 { "" } else { "s" },
            pool.in_use,
            pool.idle,
            pool.reserved_bytes >> 20
        )?;
        for (i, thread) in self.threads.iter().enumerate() {
            let last = i + 1 == self.threads.len();
            let name = thread.name.as_deref().unwrap_or("unnamed");
            write!(out, "{} thread {:#x} ({name})", if last { "└─" } else { "├─" }, thread.id)?;
            match thread.own_stack {
                Some((low, high)) => {
                    write!(out, ", own stack {low:#x}..{high:#x}, exact, {} KiB", (high - low) >> 10)?
                }
                None => write!(out, ", own stack not known")?,
            }
            if thread.upcall_stacks != 0 {
                write!(out, ", {} stacks for upcalls", thread.upcall_stacks)?;
            }
            if thread.left_calls != 0 {
                write!(out, ", {} downcalls were left by longjmp", thread.left_calls)?;
            }
            writeln!(out, "{}", if thread.current { ", took this snapshot" } else { "" })?;
            let mut depth = 0;
            for (i, call) in thread.calls.iter().enumerate() {
                depth = if i > 0 && call.is_below(&thread.calls[i - 1]) { depth + 1 } else { 0 };
                let what = match call.direction {
                    Direction::Upcall => "C → Rust, called from",
                    Direction::Downcall => "Rust → C, C runs on",
                };
                let stack = match call.stack {
                    StackKind::Own => "the thread's own stack",
                    StackKind::Pooled => "a pooled stack",
                    StackKind::Registered => "a registered stack",
                    StackKind::Undescribed => "an undescribed stack",
                };
                let bar = if last { " " } else { "│" };
                writeln!(
                    out,
                    "{bar}  {:indent$}└─ {what} {stack}, SP {:#x}",
                    "",
                    call.sp,
                    indent = 2 * depth
                )?;
            }
        }
        Ok(())
    }
}
