//! Service stacks: a few stacks of our own, for our own cold paths.
//!
//! A thread's first upcall may come with 1 KiB of stack remaining. Attaching the thread asks the OS
//! for bounds, allocates, and may bind symbols. That takes several times as much, and a host's
//! allocator may take any amount. So cold paths run on a service stack from their first
//! instruction. Service stacks are not in the pool, because filling the pool is one of those paths.
//!
//! They are mapped, with guards, at their first use. Mapping one needs some stack, too: a block in
//! our data segment. Only the system calls run there, so the block needs no guard. It could not
//! have one, since collectors read whole data segments. If no memory can be mapped, the cold path
//! itself runs on the block.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use stackbounds::stack_pointer;

use super::sanitizer::{self, SavedStack};
use super::switch;
use crate::process::{fork, with_signals_blocked};
use crate::sync::OwnCode;
use crate::sys;

/// The size of a service stack: 512 KiB. Untouched pages cost only address space.
const SIZE: usize = 512 << 10;
/// The guard of a service stack: its lowest 64 KiB, whole pages everywhere.
///
/// It is large because C code, such as an allocator's, does not probe its frames.
const GUARD: usize = 64 << 10;
/// The highest bytes of a service stack, locked if the process locks its memory.
///
/// Our own code and an ordinary allocator need no more.
const LOCKED: usize = 64 << 10;
/// The number of service stacks: as many threads can attach at a time. Others wait.
const COUNT: usize = 8;
/// The size of the block in the data segment: enough to attach with an ordinary allocator.
const BLOCK: usize = 64 << 10;

/// A service stack, used by one thread at a time.
struct Service {
    /// Its lowest address; 0 before it is mapped. Only the thread that has taken the stack changes
    /// it.
    low: AtomicUsize,
    taken: AtomicBool,
    saved: SavedStack,
}

// SAFETY: the other fields are atomic. `saved` is used only by the thread that set `taken`, until
// that thread clears it.
unsafe impl Sync for Service {}

/// All service stacks but the block.
static SERVICES: [Service; COUNT] = [const { Service::new() }; COUNT];

/// The block in the data segment. It is aligned as its use as a stack requires: some linkers do not
/// honour an alignment beyond that of a page.
#[repr(C, align(64))]
struct Block(UnsafeCell<MaybeUninit<[u8; BLOCK]>>);

// SAFETY: only the thread that has taken `FIRST` uses the memory, as a stack.
unsafe impl Sync for Block {}

static BLOCK_MEMORY: Block = Block(UnsafeCell::new(MaybeUninit::uninit()));

/// A stack in static memory, for code of known depth: the handler of a fault.
///
/// The handler must not look for another stack, and it may have come on any alternate stack of the
/// host's.
#[repr(C, align(64))]
pub(crate) struct StaticStack {
    memory: UnsafeCell<MaybeUninit<[u8; STATIC]>>,
    saved: SavedStack,
}

/// The size of a static stack: an unoptimised build needs this much for a report.
const STATIC: usize = 32 << 10;

impl StaticStack {
    pub const fn new() -> Self {
        Self { memory: UnsafeCell::new(MaybeUninit::uninit()), saved: SavedStack::new() }
    }

    /// Whether `sp` is on this stack.
    pub fn contains(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.memory.get() as usize) < STATIC
    }

    /// Runs `f` on this stack.
    ///
    /// # Safety
    /// Nobody else uses the stack, and it has enough room for `f`. Signals are blocked. Otherwise a
    /// handler could reuse the thread's alternate stack from its top, over the frames waiting
    /// there.
    pub unsafe fn run(&self, f: &mut dyn FnMut()) {
        let low = self.memory.get() as usize;
        // SAFETY: the caller guarantees that nobody else uses the memory and that it suffices for
        // `f`. Its size and alignment are multiples of 64.
        unsafe { switch::on_block(low, low + STATIC, &self.saved, f) };
    }
}

/// The block, as a stack. Its `low` is set once Valgrind, if it runs, knows the block.
static FIRST: Service = Service::new();

/// Runs `f` on a service stack, or in place if the caller is on one. Panics pass through.
///
/// The caller's stack may be nearly full. `f` may allocate. An upcall from the allocator finds
/// [`in_own_code`](crate::sync::in_own_code).
///
/// The thread's asynchronous signals are blocked meanwhile. Rule: **no signal handler interrupts
/// `f`.** So no handler finds a lock of ours held by its own thread, and none takes a service stack
/// away by switching coroutines.
#[inline(never)]
pub(crate) fn run<R>(f: impl FnOnce() -> R) -> R {
    fn blocked(f: &mut dyn FnMut()) {
        with_signals_blocked(|_| {
            let _own_code = OwnCode::begin();
            on_service(f);
        });
    }
    if contains(stack_pointer()) { f() } else { without_types(f, blocked) }
}

/// Runs `f` on a service stack without blocking signals, so without a system call.
///
/// `f` takes no lock and allocates nothing.
#[inline(always)]
pub(crate) fn ask<R>(f: impl FnOnce() -> R) -> R {
    if contains(stack_pointer()) { f() } else { without_types(f, on_service) }
}

/// Runs `f` by `run`, which is not generic. A panic of `f` bypasses `run`.
///
/// In unoptimised builds, each generic function would copy the values into its frame.
#[inline(always)]
fn without_types<R>(f: impl FnOnce() -> R, run: fn(&mut dyn FnMut())) -> R {
    let mut f = Some(f);
    let mut result = None;
    run(&mut || result = f.take().map(|f| catch_unwind(AssertUnwindSafe(f))));
    let result = result.expect("a switch runs what it is given");
    result.unwrap_or_else(|payload| resume_unwind(payload))
}

/// Runs `f` on a service stack. `f` does not unwind.
fn on_service(f: &mut dyn FnMut()) {
    let service = take();
    match service.low.load(Relaxed) {
        0 => run_mapping(service, f),
        low => run_on(service, low, SIZE, f),
    }
    service.taken.store(false, Release);
}

/// Maps the service stack `service`, and runs `f` on it. `f` does not unwind.
///
/// If there is no memory, `f` runs on the block.
#[cold]
#[inline(never)]
fn run_mapping(service: &Service, f: &mut dyn FnMut()) {
    FIRST.take();
    let block = BLOCK_MEMORY.0.get() as usize;
    if FIRST.low.swap(block, Relaxed) == 0 {
        // Valgrind must know a stack before anything runs on it.
        sanitizer::stack_made(block as *mut u8, BLOCK);
    }
    // Not on the caller's stack, since there may be no room to call libc.
    run_on(&FIRST, block, BLOCK, &mut || service.map());
    let low = service.low.load(Relaxed);
    if low == 0 {
        run_on(&FIRST, block, BLOCK, f);
    }
    FIRST.taken.store(false, Release);
    if low != 0 {
        run_on(service, low, SIZE, f);
    }
}

/// Runs `f` on a stack taken by the calling thread. `f` does not unwind.
#[inline(never)]
fn run_on(service: &Service, low: usize, size: usize, f: &mut dyn FnMut()) {
    // SAFETY: the caller has taken the stack. It has a guard; or it is the block, and the code run
    // there needs a small part of it.
    unsafe { switch::on_block(low, low + size, &service.saved, f) };
}

/// Whether `sp` is on a service stack or the block.
pub(crate) fn contains(sp: usize) -> bool {
    let block = BLOCK_MEMORY.0.get() as usize;
    sp.wrapping_sub(block) < BLOCK || SERVICES.iter().any(|service| service.contains(sp))
}

/// Frees all service stacks, in the child of a fork. Their users do not exist there.
pub(crate) fn forget_users() {
    SERVICES.iter().chain([&FIRST]).for_each(|service| service.taken.store(false, Relaxed));
}

/// The bounds of the service stack whose guard contains `address`.
pub(crate) fn with_guard_at(address: usize) -> Option<(usize, usize)> {
    SERVICES.iter().map(|service| service.low.load(Relaxed)).filter(|&low| low != 0).find_map(|low| {
        let guard = low..low + GUARD;
        guard.contains(&address).then_some((low + GUARD, low + SIZE))
    })
}

impl Service {
    const fn new() -> Self {
        Self { low: AtomicUsize::new(0), taken: AtomicBool::new(false), saved: SavedStack::new() }
    }

    fn contains(&self, sp: usize) -> bool {
        let low = self.low.load(Relaxed);
        low != 0 && sp.wrapping_sub(low) < SIZE
    }

    /// Takes the stack if nobody has it; returns whether it did.
    fn try_take(&self) -> bool {
        !self.taken.swap(true, Acquire)
    }

    /// Takes the stack, as soon as nobody else has it.
    fn take(&self) {
        (0..).take_while(|_| !self.try_take()).for_each(sys::wait_a_little);
    }

    /// Maps the stack if there is memory for it. If the system refuses the guard, it has none.
    fn map(&self) {
        let Some((low, locks)) = sys::reserve(SIZE, GUARD) else { return };
        // SAFETY: the memory was just mapped, in whole pages. Nothing will be kept in its lowest
        // `GUARD` bytes.
        unsafe { sys::guard(low, GUARD) };
        if !sys::commit(low.wrapping_add(GUARD), SIZE - GUARD) {
            return;
        }
        sys::lock(locks, low.wrapping_add(SIZE - LOCKED), LOCKED);
        sanitizer::stack_made(low.wrapping_add(GUARD), SIZE - GUARD);
        self.low.store(low as usize, Relaxed);
    }
}

/// Takes a service stack; waits if all are taken.
fn take() -> &'static Service {
    // If this is the child of a fork, stacks taken by other threads of the parent are free.
    fork::notice_child();
    for round in 0.. {
        if let Some(service) = SERVICES.iter().find(|service| service.try_take()) {
            return service;
        }
        // The holders may need this thread's core. If their priority is lower, yielding does not
        // give it to them.
        sys::wait_a_little(round);
    }
    unreachable!("rounds do not end")
}
