//! A snapshot of the process: every attached thread, its stacks, open calls, fibers and waits.

use std::panic::Location;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use stackbounds::for_upcall::{RangeKind, described};
use stackbounds::{Accuracy, stack_pointer};

use crate::coroutine::names;
use crate::fiber::coroutines;
use crate::function::Function;
use crate::published::CurrentWait;
use crate::stack::pool::{self, PoolUse};
use crate::stack::{StackHeader, registered};
use crate::sys;
#[cfg(feature = "runtime")]
use crate::task::Task;
use crate::thread::{CurrentUpcall, Record, ThreadState, own_stack, record, waits_for};

/// The state of the process at one moment; made by [`snapshot`].
///
/// `Display` prints it as a tree. With the feature `serde`, it can be serialised, as JSON for
/// example. From C, and from a debugger, [`dump`](crate::c::dump) writes the tree. The example
/// `map` draws it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// The process ID.
    pub process: u32,
    /// The attached threads, without those that have begun to exit.
    pub threads: Vec<Thread>,
    /// The use of the stack pool.
    pub pool: PoolUse,
    /// The number of running tasks: those of [`start`](crate::start) that have not ended.
    #[cfg(feature = "runtime")]
    pub running_tasks: usize,
    /// The number of upcalls from undescribed stacks so far.
    ///
    /// They are counted only if [`ForeignStacks`](crate::ForeignStacks) is `Report` or `Refuse`.
    pub foreign_upcalls: usize,
}

/// One attached thread.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Thread {
    /// The thread's `pthread_t`, as shown by debuggers.
    pub id: usize,
    /// The thread's name, on systems that tell it.
    pub name: Option<String>,
    /// Whether this thread took the snapshot.
    pub current: bool,
    /// The innermost wait that blocks the thread; `None` if no wait blocks it.
    pub waits: Option<Wait>,
    /// The stacks in use by the thread.
    ///
    /// They are in this order: its own, if this is known; pooled ones; stacks of the host with open
    /// calls; its fibers'.
    pub stacks: Vec<Stack>,
    /// The number of idle stacks reserved for the thread's next upcalls.
    pub idle_stacks: usize,
    /// The number of downcalls abandoned by `longjmp` and found so far.
    pub abandoned_calls: usize,
    /// The thread's open calls, including those of its fibers, oldest first as far as the order is
    /// known.
    ///
    /// If the host copies stacks, two upcalls of one function from the same address appear as one.
    pub calls: Vec<Call>,
    /// The host's coroutines suspended by waits: see [`coroutines`](crate::coroutines).
    pub coroutines: Vec<SuspendedCoroutine>,
}

/// One stack of a thread.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stack {
    /// The kind of stack.
    pub kind: StackKind,
    /// The name given by the owner of a registered stack, or the name of the fiber.
    pub name: Option<String>,
    /// The lowest usable address.
    pub low: usize,
    /// The address just above the highest one.
    pub high: usize,
    /// Whether the bounds are exact, or a window around a stack pointer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "accuracy"))]
    pub accuracy: Accuracy,
    /// The headroom: the bytes below the deepest known stack pointer.
    ///
    /// This is the deepest SP of an open call, or of the thread that took the snapshot. `None` if
    /// no SP on the stack is known, or if the bounds are estimated.
    pub remaining: Option<usize>,
    /// The bytes from `high` down to the deepest page in memory.
    ///
    /// This is an upper limit on the stack's use so far, by earlier users too. `None` if it is not
    /// known.
    pub deepest: Option<usize>,
    /// The fiber that began on this stack.
    pub fiber: Option<FiberState>,
}

/// A fiber that has begun and has not ended.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct FiberState {
    /// The current wait of the fiber; `None` while it runs.
    pub waits: Option<Wait>,
}

/// A wait that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Wait {
    /// The type of the future; for an `async` block, the function around it.
    pub future: &'static str,
    /// The source file of the wait.
    pub file: &'static str,
    /// The line of the wait in this file.
    pub line: u32,
}

/// A coroutine of the host, suspended by a wait.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SuspendedCoroutine {
    /// The pointer that the host chose for the coroutine.
    pub coroutine: usize,
    /// The wait.
    pub waits: Wait,
    /// The time since the suspension, in steps of a millisecond.
    pub since: Duration,
    /// Whether the coroutine can go on, and waits for the host to resume it.
    pub is_ready: bool,
}

/// One call that has not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Call {
    /// The direction of the call.
    pub direction: Direction,
    /// The Rust function called by C. For a downcall, the function of its upcall, if there is one.
    pub function: Option<&'static str>,
    /// The stack pointer at the beginning of the called code.
    ///
    /// For an upcall, this is the position on C's stack; its Rust code may run on a pooled stack.
    pub sp: usize,
    /// The stack pointer of the calling code.
    pub caller_sp: usize,
    /// The kind of the stack at `sp`.
    pub stack: StackKind,
}

/// The direction of a call between C and Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Direction {
    /// C called Rust.
    Upcall,
    /// Rust called C.
    Downcall,
}

/// The kind of a stack, by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum StackKind {
    /// The thread's own stack.
    Own,
    /// A stack from upcall's pool.
    Pooled,
    /// A stack registered by the host.
    Registered,
    /// A stack that nobody described.
    Undescribed,
}

#[cfg(feature = "serde")]
fn accuracy<S: serde::Serializer>(accuracy: &Accuracy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{accuracy:?}"))
}

impl Stack {
    /// Whether `address` is on the stack.
    pub fn contains(&self, address: usize) -> bool {
        self.low <= address && address < self.high
    }
}

/// The probable maximum distance between two calls on one undescribed stack, in bytes.
const NEAR: usize = 64 << 10;

/// Takes a snapshot of the process: attached threads, their stacks, open calls and fibers, and the
/// pool.
///
/// Threads are not stopped, so changes of another thread may be visible half-way: a call that has
/// just returned may still be listed. For some microseconds, the function holds the pool's lock and
/// the lock under which threads attach and detach. Then it asks the system for the resident pages
/// of each stack.
///
/// ```
/// upcall::enter(|| {
///     upcall::downcall(|| {
///         let snapshot = upcall::snapshot();
///         println!("{snapshot}");
///         assert_eq!(snapshot.threads.iter().find(|t| t.current).unwrap().calls.len(), 2);
///     })
/// })?;
/// # Ok::<(), upcall::UpcallError>(())
/// ```
pub fn snapshot() -> Snapshot {
    let here = stack_pointer();
    let mut threads = Vec::new();
    record::for_each(|record| threads.push(seen(record)));
    for (serial, suspended) in coroutines::suspended() {
        if let Some(seen) = threads.iter_mut().find(|seen| seen.serial == serial) {
            seen.thread.coroutines.push(SuspendedCoroutine::new(suspended));
        }
    }
    let pooled = pooled_stacks();
    let threads = threads.into_iter().map(|seen| seen.into_thread(&pooled, here)).collect();
    Snapshot {
        process: std::process::id(),
        threads,
        pool: pool::usage(),
        #[cfg(feature = "runtime")]
        running_tasks: Task::running(),
        foreign_upcalls: own_stack::FOREIGN_UPCALLS.load(Relaxed),
    }
}

/// The data read from one thread while it cannot detach.
struct Seen {
    serial: usize,
    own: Own,
    /// The bases of the thread's idle stacks.
    idle: Vec<usize>,
    /// The result, still without the stacks and everything derived from them.
    thread: Thread,
}

fn seen(record: &Record) -> Seen {
    // SAFETY: a record's `ThreadState` lives as long as its thread, and the thread cannot detach
    // during `for_each`. If it is another thread's, only atomic fields are read.
    let thread = unsafe { &*record.thread };
    let own = thread.own_stack();
    let mut calls = Vec::new();
    let mut open: Vec<_> = record.open_calls().collect();
    // Each number is read once: another thread may be about to reuse the place.
    open.sort_by_cached_key(|call| call.serial());
    for call in open {
        let upcall = call.upcall.get();
        calls.extend(new_upcall(own, upcall, &calls));
        let sp = call.c_sp(pool::system_sp_at);
        let function = upcall.function.filter(|_| upcall.sp != 0).map(Function::name);
        calls.push(Call {
            direction: Direction::Downcall,
            function,
            sp,
            caller_sp: call.rust_sp(),
            stack: stack_of(own, sp).0,
        });
    }
    calls.extend(new_upcall(own, thread.upcall.get(), &calls));
    // The thread may take or put back spares meanwhile, so only their addresses are read. While the
    // pool's lock is held, none of these stacks is handed out anew.
    let pool_as_it_is = pool::hold_lock();
    let idle: Vec<usize> = thread.idle().take(64).map(StackHeader::base).collect();
    drop(pool_as_it_is);
    let thread = Thread {
        id: record.os_thread_id,
        name: sys::thread_name(record.os_thread_id),
        current: ptr::eq(thread, ThreadState::current()),
        waits: waits_for(thread, record, ptr::eq(thread, ThreadState::current()).then(stack_pointer))
            .map(Wait::new),
        stacks: Vec::new(),
        idle_stacks: idle.len(),
        abandoned_calls: thread.calls.reclaimed(),
        calls,
        coroutines: Vec::new(),
    };
    Seen { serial: record.serial, own, idle, thread }
}

/// The upcall as a call, if there is one and it is not among `calls`.
///
/// It may be there already: other code may have made calls on its behalf while it waits for this
/// code.
fn new_upcall(own: Own, upcall: CurrentUpcall, calls: &[Call]) -> Option<Call> {
    upcall_in_words(own, upcall).filter(|call| !calls.contains(call))
}

fn upcall_in_words(own: Own, CurrentUpcall { sp, function }: CurrentUpcall) -> Option<Call> {
    let function = function.map(Function::name);
    let stack = stack_of(own, sp).0;
    (sp != 0).then_some(Call { direction: Direction::Upcall, function, sp, caller_sp: sp, stack })
}

/// The number of running fibers around a running fiber: each resumes the next. Suspended fibers
/// have 0, without a search: there may be very many.
fn depth<'a>(fiber: &'a Pooled, fibers: impl Iterator<Item = &'a Pooled> + Clone) -> usize {
    let running = fibers.filter(|fiber| fiber.resumed_at != 0);
    let resumer = |fiber: &&Pooled| {
        let at = fiber.resumed_at;
        running.clone().find(|other| at != 0 && other.stack.contains(at))
    };
    // Another thread goes on meanwhile, so the answers may form a circle.
    let most = if fiber.resumed_at == 0 { 0 } else { running.clone().count() };
    std::iter::successors(resumer(&fiber), resumer).take(most).count()
}

/// Adds the upcalls of fibers: a suspended fiber's own, and that of a running fiber's resumer.
///
/// Each is placed after the downcall that encloses it on its stack.
fn add_upcalls<'a>(calls: &mut Vec<Call>, own: Own, fibers: impl Iterator<Item = &'a Pooled> + Clone) {
    let mut by_sp: Vec<(usize, usize)> = calls.iter().enumerate().map(|(i, call)| (call.sp, i)).collect();
    by_sp.sort_unstable();
    let mut added: Vec<(usize, usize, Call)> = Vec::new();
    for fiber in fibers.clone() {
        let Some(call) = fiber.upcall.and_then(|upcall| upcall_in_words(own, upcall)) else { continue };
        let above = &by_sp[by_sp.partition_point(|&(sp, _)| sp < call.sp)..];
        let same_sp = above.iter().take_while(|&&(sp, _)| sp == call.sp);
        if same_sp.clone().any(|&(_, i)| calls[i] == call) {
            continue;
        }
        let end = stack_of(own, call.sp).1;
        let after = above.first().filter(|&&(sp, _)| sp < end).map(|&(_, i)| i + 1);
        let suspended = fiber.stack.fiber.as_ref().is_some_and(|fiber| fiber.waits.is_some());
        let at = after.unwrap_or(if suspended { calls.len() } else { 0 });
        added.push((at, depth(fiber, fibers.clone()), call));
    }
    added.sort_by_key(|&(at, depth, _)| (at, depth));
    let mut old = std::mem::take(calls).into_iter();
    let mut taken = 0;
    for (at, _, call) in added {
        calls.extend(old.by_ref().take(at - taken));
        taken = at;
        calls.push(call);
    }
    calls.extend(old);
}

/// The bounds of a thread's own stack, if they are known.
pub(super) type Own = Option<(usize, usize)>;

/// The kind of the stack at `sp`, and the stack's high end.
///
/// `own` is the own stack of the thread.
pub(super) fn stack_of(own: Own, sp: usize) -> (StackKind, usize) {
    if let Some((_, high)) = own.filter(|(low, high)| (*low..*high).contains(&sp)) {
        return (StackKind::Own, high);
    }
    let around = described(sp);
    match around.kind {
        RangeKind::Slot => (StackKind::Pooled, around.high),
        RangeKind::Stack => (StackKind::Registered, around.high),
        RangeKind::Gap => (StackKind::Undescribed, around.high.min(sp.saturating_add(NEAR))),
    }
}

impl Wait {
    fn new((at, future): (&'static Location<'static>, Function)) -> Wait {
        Wait { future: future.name(), file: at.file(), line: at.line() }
    }

    fn of(waits: &CurrentWait) -> Option<Wait> {
        waits.get().map(Self::new)
    }
}

impl SuspendedCoroutine {
    fn new(coroutines::Suspended { coroutine, wait, since, is_ready }: coroutines::Suspended) -> Self {
        Self { coroutine: coroutine.as_ptr() as usize, waits: Wait::new(wait), since, is_ready }
    }
}

/// A stack that the pool has handed out.
struct Pooled {
    /// The serial number of the thread that has the stack.
    serial: usize,
    base: usize,
    /// For a fiber's stack: see [`StackHeader::upcall`].
    upcall: Option<CurrentUpcall>,
    /// SP of the resumer, if a fiber runs on it.
    resumed_at: usize,
    stack: Stack,
}

fn pooled_stacks() -> Vec<Pooled> {
    let mut stacks = Vec::new();
    let _names = names::hold_lock();
    pool::for_each_taken(|stack| {
        let (low, base) = (stack.low.get(), stack.base());
        // On the stack where a fiber began, its `FiberContext` is in the first frame.
        let begun = stack.contains(stack.fiber.get() as usize);
        let fiber = begun.then(|| FiberState { waits: Wait::of(&stack.waits) });
        let name = names::with_name(stack, |name| name.map(str::to_owned));
        let stack_of_ours = Stack { name, fiber, ..Stack::new(StackKind::Pooled, low, base) };
        stacks.push(Pooled {
            serial: stack.owner.get().serial,
            base,
            upcall: begun.then(|| stack.upcall.get()),
            resumed_at: stack.resumed_at.load(Relaxed),
            stack: stack_of_ours,
        });
    });
    stacks
}

impl Stack {
    fn new(kind: StackKind, low: usize, high: usize) -> Stack {
        let accuracy = Accuracy::Exact;
        Stack { kind, name: None, low, high, accuracy, remaining: None, deepest: None, fiber: None }
    }

    /// The stack around `sp`, which is neither pooled nor the thread's own.
    fn around(sp: usize) -> Stack {
        let around = described(sp);
        if around.kind != RangeKind::Gap {
            let name = registered::name_of(sp);
            return Stack { name, ..Stack::new(StackKind::Registered, around.low, around.high) };
        }
        let (low, high) = (sp.saturating_sub(32 << 10).max(around.low), (sp + 1024).min(around.high));
        Stack { accuracy: Accuracy::Estimated, ..Stack::new(StackKind::Undescribed, low, high) }
    }
}

impl Seen {
    fn into_thread(self, pooled: &[Pooled], here: usize) -> Thread {
        let Seen { serial, own, idle, mut thread } = self;
        let its = || pooled.iter().filter(|pooled| pooled.serial == serial);
        add_upcalls(&mut thread.calls, own, its());
        let mut sps: Vec<_> = thread.calls.iter().flat_map(|call| [call.sp, call.caller_sp]).collect();
        if thread.current {
            sps.push(here);
        }
        let stacks = &mut thread.stacks;
        stacks.extend(own.map(|(low, high)| Stack::new(StackKind::Own, low, high)));
        let in_use = its().filter(|pooled| !idle.contains(&pooled.base));
        stacks.extend(in_use.map(|pooled| pooled.stack.clone()));
        // From the top, so that the window of an estimate grows down to the next SP.
        sps.sort_unstable_by(|a, b| b.cmp(a));
        for &sp in &sps {
            let near = |stack: &Stack| {
                stack.contains(sp)
                    || stack.kind == StackKind::Undescribed && stack.low.saturating_sub(sp) < NEAR
            };
            if described(sp).kind == RangeKind::Slot {
                continue;
            }
            match stacks.iter_mut().find(|stack| near(stack)) {
                // The window of an estimate grows down to include a known SP.
                Some(stack) if !stack.contains(sp) => stack.low = sp.saturating_sub(32 << 10),
                Some(_) => {}
                None => stacks.push(Stack::around(sp)),
            }
        }
        // Fibers come last, since there may be very many.
        stacks.sort_by_key(|stack| stack.fiber.is_some());
        for stack in stacks.iter_mut() {
            let deepest = sps.iter().copied().filter(|&sp| stack.contains(sp)).min();
            if stack.accuracy == Accuracy::Exact {
                stack.remaining = deepest.map(|sp| sp - stack.low);
                stack.deepest = sys::lowest_resident(stack.low, stack.high).map(|lowest| stack.high - lowest);
            }
        }
        thread
    }
}
