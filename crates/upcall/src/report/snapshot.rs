//! What is going on: every attached thread, its stacks, its open calls, its fibers and what they wait for.

use std::panic::Location;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::{Accuracy, Kind, stack_pointer};

use super::sys;
use crate::function::Function;
use crate::shown::Waits;
use crate::stack::pool::{self, PoolUse};
use crate::stack::{Control, names, registered};
use crate::thread::{Hot, Record, Upcall, record, thread_name};

/// The state of the process at one moment; made by [`snapshot`].
///
/// `Display` prints it as a tree, [`to_svg`](Self::to_svg) draws it; with the feature `serde` it can be serialised, as JSON for one. From
/// C, and from a debugger, `upcall_dump(fd)` writes the tree.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The process's number.
    pub process: u32,
    /// The attached threads, but those whose exit has begun.
    pub threads: Vec<Thread>,
    /// The stack pool.
    pub pool: PoolUse,
    /// Upcalls from undescribed stacks so far, if they are reported or refused.
    pub foreign_upcalls: usize,
}

/// One attached thread.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Thread {
    /// Its `pthread_t`, which debuggers show.
    pub id: usize,
    /// Its name, where the system tells it.
    pub name: Option<String>,
    /// Whether it is the one that took the snapshot.
    pub current: bool,
    /// What it waits for, if it is blocked by a wait: by the innermost.
    pub waits: Option<Wait>,
    /// The stacks that are in use: its own first, if that is known, then those of the pool, then the host's that open calls are on, then
    /// its fibers'.
    pub stacks: Vec<Stack>,
    /// Idle stacks that it keeps for its next upcalls.
    pub idle_stacks: usize,
    /// How many downcalls were found to have been left by `longjmp`, so far.
    pub left_calls: usize,
    /// Its open calls, in the order in which they were made. Two upcalls of one function from the same address of two stacks that the host
    /// copies are one here.
    pub calls: Vec<Call>,
}

/// One stack.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stack {
    /// Whose it is.
    pub kind: StackKind,
    /// What its owner calls it, if it is registered, or the fiber's name.
    pub name: Option<String>,
    /// Its lowest usable address.
    pub low: usize,
    /// The address above its highest.
    pub high: usize,
    /// Whether the bounds are exact, or a window around a stack pointer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "accuracy"))]
    pub accuracy: Accuracy,
    /// Headroom: bytes below the deepest stack pointer that is known, which is that of an open call, or of who took the snapshot.
    pub left: Option<usize>,
    /// Bytes from `high` down to the deepest page in memory: as much as was ever used at most, by earlier users too.
    pub deepest: Option<usize>,
    /// The fiber that began on it.
    pub fiber: Option<FiberState>,
}

/// A fiber that has begun and has not ended.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FiberState {
    /// What it waits for; `None` while it runs.
    pub waits: Option<Wait>,
}

/// A wait that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Wait {
    /// The type of the future; of an `async` block, the function that it is in.
    pub future: &'static str,
    /// The file of the code that waits.
    pub file: &'static str,
    /// The line there.
    pub line: u32,
}

/// One call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Call {
    /// Which way it goes.
    pub direction: Direction,
    /// The Rust function that C called; of a downcall, the one that it belongs to, if any.
    pub function: Option<&'static str>,
    /// The stack pointer where the called side began; an upcall's Rust code may have gone on on a stack of ours.
    pub sp: usize,
    /// The stack pointer of the calling side.
    pub caller_sp: usize,
    /// The kind of stack that `sp` is on.
    pub stack: StackKind,
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Direction {
    /// C called Rust.
    Upcall,
    /// Rust called C.
    Downcall,
}

/// Whose stack an address is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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

#[cfg(feature = "serde")]
fn accuracy<S: serde::Serializer>(accuracy: &Accuracy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{accuracy:?}"))
}

impl Stack {
    /// Whether an address is on it.
    pub fn contains(&self, address: usize) -> bool {
        self.low <= address && address < self.high
    }
}

/// How far apart two calls on one undescribed stack are likely to be at most.
pub(super) const NEAR: usize = 64 << 10;

/// Takes stock of every attached thread, its stacks, open calls and fibers, and the pool.
///
/// Threads are not stopped. What another thread is doing meanwhile may be seen half-way: a call of its may be there that has just
/// returned. Takes the locks that threads attach and detach under, and the pool's, for some microseconds; then asks the system of each
/// stack which pages are in memory.
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
    let here = stack_pointer();
    let mut threads = Vec::new();
    record::for_each(|record| threads.push(seen(record)));
    let pooled = pooled_stacks();
    let threads = threads.into_iter().map(|seen| seen.into_thread(&pooled, here)).collect();
    Snapshot {
        process: std::process::id(),
        threads,
        pool: pool::usage(),
        foreign_upcalls: record::FOREIGN_UPCALLS.load(Relaxed),
    }
}

/// What is seen of a thread while it cannot detach.
struct Seen {
    serial: usize,
    own: Option<(usize, usize)>,
    /// The bases of its idle stacks.
    idle: Vec<usize>,
    /// All stack pointers that are known of its calls.
    sps: Vec<usize>,
    /// But for its stacks.
    thread: Thread,
}

fn seen(record: &Record) -> Seen {
    // SAFETY: a record's Hot lives as long as its thread, which cannot detach, as `for_each` says. Of another thread's, only
    // atomic fields are read.
    let hot = unsafe { &*record.hot };
    let mut calls = Vec::new();
    let mut open: Vec<_> = record.open_calls().collect();
    // Read once: another thread may be about to use a place again.
    open.sort_by_cached_key(|call| call.serial());
    for call in open {
        let upcall = call.upcall.get();
        push_upcall(&mut calls, hot, upcall);
        let sp = call.c_sp(pool::system_sp_at);
        let function = upcall.function.filter(|_| upcall.sp != 0).map(Function::name);
        calls.push(Call {
            direction: Direction::Downcall,
            function,
            sp,
            caller_sp: call.rust_sp(),
            stack: kind_of(hot, sp),
        });
    }
    push_upcall(&mut calls, hot, hot.upcall.get());
    let sps = calls.iter().flat_map(|call| [call.sp, call.caller_sp]).collect();
    // The thread may change its list meanwhile, so that there is no end to be relied on. With the pool held, no stack that was on it is made anew.
    let pool_as_it_is = pool::hold_lock();
    let idle: Vec<usize> = hot.idle().take(64).map(Control::base).collect();
    drop(pool_as_it_is);
    let thread = Thread {
        id: record.thread_id,
        name: thread_name(record.thread_id),
        current: ptr::eq(hot, Hot::here()),
        waits: Wait::of(&hot.waits_for),
        stacks: Vec::new(),
        idle_stacks: idle.len(),
        left_calls: hot.calls.reclaimed(),
        calls,
    };
    Seen { serial: record.serial, own: hot.own_stack(), idle, sps, thread }
}

/// Adds an upcall, unless it is there: some code that it waits for may have made calls on its behalf.
fn push_upcall(calls: &mut Vec<Call>, hot: &Hot, Upcall { sp, function }: Upcall) {
    let function = function.map(Function::name);
    let call = Call { direction: Direction::Upcall, function, sp, caller_sp: sp, stack: kind_of(hot, sp) };
    if sp != 0 && !calls.contains(&call) {
        calls.push(call);
    }
}

fn kind_of(hot: &Hot, sp: usize) -> StackKind {
    if hot.own_stack().is_some_and(|(low, high)| (low..high).contains(&sp)) {
        return StackKind::Own;
    }
    match stackbounds::described(sp).kind {
        Kind::Slot => StackKind::Pooled,
        Kind::Stack => StackKind::Registered,
        Kind::Gap => StackKind::Undescribed,
    }
}

impl Wait {
    fn of(waits: &Waits) -> Option<Wait> {
        let (at, future): (&'static Location<'static>, _) = waits.get()?;
        Some(Wait { future, file: at.file(), line: at.line() })
    }
}

/// Each stack that is handed out, with the serial number of its thread and its base.
fn pooled_stacks() -> Vec<(usize, usize, Stack)> {
    let mut stacks = Vec::new();
    let _names = names::hold_lock();
    pool::for_each_taken(|stack| {
        let (low, base) = (stack.low.get(), stack.base());
        // A fiber is in the first frame of the stack that it began on.
        let begun = stack.contains(stack.fiber.get() as usize);
        let fiber = begun.then(|| FiberState { waits: Wait::of(&stack.waits) });
        let name = names::with_name(stack, |name| name.map(str::to_owned));
        let stack_of_ours = Stack { name, fiber, ..Stack::new(StackKind::Pooled, low, base) };
        stacks.push((stack.mark.get().serial, base, stack_of_ours));
    });
    stacks
}

impl Stack {
    fn new(kind: StackKind, low: usize, high: usize) -> Stack {
        let accuracy = Accuracy::Exact;
        Stack { kind, name: None, low, high, accuracy, left: None, deepest: None, fiber: None }
    }

    /// The one around `sp`, which is none of ours.
    fn around(sp: usize) -> Stack {
        let around = stackbounds::described(sp);
        if around.kind != Kind::Gap {
            let name = registered::name_of(sp);
            return Stack { name, ..Stack::new(StackKind::Registered, around.low, around.high) };
        }
        let (low, high) = (sp.saturating_sub(32 << 10).max(around.low), (sp + 1024).min(around.high));
        Stack { accuracy: Accuracy::Estimated, ..Stack::new(StackKind::Undescribed, low, high) }
    }
}

impl Seen {
    fn into_thread(self, pooled: &[(usize, usize, Stack)], here: usize) -> Thread {
        let Seen { serial, own, idle, mut sps, mut thread } = self;
        if thread.current {
            sps.push(here);
        }
        let stacks = &mut thread.stacks;
        stacks.extend(own.map(|(low, high)| Stack::new(StackKind::Own, low, high)));
        let in_use = pooled.iter().filter(|(of, base, _)| *of == serial && !idle.contains(base));
        stacks.extend(in_use.map(|(.., stack)| stack.clone()));
        // From the top, so that an estimate has those below it.
        sps.sort_unstable_by(|a, b| b.cmp(a));
        for &sp in &sps {
            let near = |stack: &Stack| {
                stack.contains(sp)
                    || stack.kind == StackKind::Undescribed && stack.low.saturating_sub(sp) < NEAR
            };
            if stackbounds::described(sp).kind == Kind::Slot {
                continue;
            }
            match stacks.iter_mut().find(|stack| near(stack)) {
                // Grown as the stack pointers that are known ask for.
                Some(stack) if !stack.contains(sp) => stack.low = sp.saturating_sub(32 << 10),
                Some(_) => {}
                None => stacks.push(Stack::around(sp)),
            }
        }
        // Fibers last: there may be very many.
        stacks.sort_by_key(|stack| stack.fiber.is_some());
        for stack in stacks.iter_mut() {
            let deepest = sps.iter().copied().filter(|&sp| stack.contains(sp)).min();
            if stack.accuracy == Accuracy::Exact {
                stack.left = deepest.map(|sp| sp - stack.low);
                stack.deepest = sys::lowest_resident(stack.low, stack.high).map(|lowest| stack.high - lowest);
            }
        }
        thread
    }
}
