//! The stack pool: all stacks for Rust code whose caller's stack will not do.
//!
//! Each stack lies in a slot. Slots have power-of-two sizes and lie in regions:
//!
//! ```text
//!   region   mapped once, described to stackbounds as one range of equal slots
//!   ├─ slot  guard │ frames │ StackHeader │ colour │ SlotTrailer
//!   ├─ slot  guard │ frames │ ...
//!   └─ ...
//! ```
//!
//! A thread keeps a few spare stacks to itself (`thread::ThreadState`), so the warm path takes no
//! lock. All other stacks are here, under one lock. Idle stacks beyond a limit give their pages
//! back and keep only their addresses. Stacks in use are not limited: a host with 10,000 suspended
//! upcalls needs 10,000.
//!
//! If the process locks new memory (`mlockall(MCL_FUTURE)`), each stack is locked by itself while
//! it holds pages, and never a whole region. A region is no larger than all earlier regions of its
//! slot size together. So a later `mlockall(MCL_CURRENT)` locks little unused memory.

use std::cell::Cell;
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::for_upcall::register_slots;

use super::kept::Kept;
use super::{CStays, SlotTrailer, StackHeader, ThreadId, sanitizer};
use crate::config::{GuardPages, settings};
use crate::messages::warn;
use crate::published::{CurrentUpcallCell, CurrentWait, Published};
use crate::sync::{self, Held, Lock, Word};
use crate::sys;
use crate::sys::isa::switch::{OsBounds, OsBoundsRef};

/// The guard below each stack: 64 KiB.
///
/// It is more than one page because C code does not probe its larger frames page by page, as Rust
/// code does.
pub(crate) const GUARD: usize = 64 << 10;
/// The range of the colour, in bytes: one page.
///
/// The base of a stack lies half a page away, modulo the page size, from the frames using the stack
/// first. Processors take a load for dependent on an earlier store if the low 12 bits of their
/// addresses agree. Stacks begin at page boundaries, so frames of two stacks often agree there. A
/// crossing then took 15 ns instead of 9.
const COLOURS: usize = 4096;
/// The range of the colour for fibers' stacks, in bytes: a part of the top page.
///
/// There may be a million fibers, each parked with less than a page of frames.
const FIBER_COLOURS: usize = 1024;
/// The most bytes in a slot used for neither guard nor frames.
const OVERHEAD: usize = COLOURS + 2 * size_of::<StackHeader>();
/// The most bytes in a region of small stacks. A larger stack has a region to itself.
const REGION: usize = 64 << 20;
/// The most bytes in the first region of a slot size. A larger stack has a region to itself.
const FIRST_REGION: usize = 2 << 20;
/// The smallest size of a slot, in bytes.
pub(crate) const SMALLEST_SLOT: usize = 2 * GUARD;
/// The bytes at the high end of a slot that can always be read: any thread looks at the trailer.
const TOP: usize = 4096;
/// The most slots in a region: the bits of a word.
const SLOTS: usize = u64::BITS as usize;

/// The size of the smallest slot with at least `bytes` for frames.
///
/// `None` if it would exceed an eighth of the address space.
pub(crate) fn slot_size_for(bytes: usize) -> Option<usize> {
    let size = bytes.checked_add(GUARD + OVERHEAD)?;
    if size > isize::MAX as usize / 4 { None } else { Some(size.next_power_of_two().max(SMALLEST_SLOT)) }
}

/// The most bytes for frames in the smallest slot with at least `bytes` for them.
pub(crate) fn room_with(bytes: usize) -> usize {
    slot_size_for(bytes).map_or(bytes, |slot_size| slot_size - (GUARD + OVERHEAD))
}

struct Region {
    low: *mut u8,
    slot_size: usize,
    slots: usize,
    /// One bit a slot: handed out.
    taken: u64,
    /// One bit a slot: idle, but still holding pages.
    warm: u64,
    /// One bit a slot: has its guard, which stays for ever.
    guarded: u64,
    locks: sys::Locks,
}

/// The idle slots of one size, kept so that taking one needs no search.
struct Class {
    slot_size: usize,
    /// The slots still holding pages, as region and slot; the newest is last.
    warm: Vec<(u32, u32)>,
    /// The regions with other idle slots, in no order.
    cold: Vec<u32>,
    /// The bytes of all regions of this size.
    mapped: usize,
}

// SAFETY: `low` points to memory owned by the pool, not by a thread. A Region is used only under
// the pool's lock.
unsafe impl Send for Region {}

struct Pool {
    regions: Vec<Region>,
    classes: Vec<Class>,
    in_use: usize,
    warm: usize,
    /// The bytes of the warm slots: the most that they can hold.
    warm_bytes: usize,
    kept: Kept,
    /// The [epoch](StackHeader::epoch) of the stack taken last.
    epoch: usize,
}

static POOL: Lock<Pool> = Lock::new(Pool {
    regions: Vec::new(),
    classes: Vec::new(),
    in_use: 0,
    warm: 0,
    warm_bytes: 0,
    kept: Kept::new(),
    epoch: 0,
});

/// As many fibers can end on a stack, one after the other, before its epoch is that of another use.
const EPOCHS_OF_A_USE: usize = 1 << 20;

impl Region {
    /// The slots that are idle and hold no pages.
    fn cold(&self) -> u64 {
        !(self.taken | self.warm) & (u64::MAX >> (SLOTS - self.slots))
    }
}

impl Pool {
    /// The index of the class of slots of `slot_size`. Makes the class if there is none.
    fn place_of_class(&mut self, slot_size: usize) -> usize {
        self.classes.iter().position(|class| class.slot_size == slot_size).unwrap_or_else(|| {
            self.classes.push(Class { slot_size, warm: Vec::new(), cold: Vec::new(), mapped: 0 });
            self.classes.len() - 1
        })
    }

    /// Finds an idle slot and removes it from its class. If there is none, maps a region.
    fn idle_slot(&mut self, slot_size: usize) -> Option<(u32, u32)> {
        let place = self.place_of_class(slot_size);
        let class = &mut self.classes[place];
        if let Some(slot) = class.warm.pop() {
            self.warm -= 1;
            self.warm_bytes -= slot_size;
            return Some(slot);
        }
        if class.cold.is_empty() {
            let mapped = class.mapped;
            self.grow(place, mapped)?;
        }
        let class = &mut self.classes[place];
        let index = *class.cold.last()?;
        let cold = self.regions[index as usize].cold();
        if cold.is_power_of_two() {
            class.cold.pop();
        }
        Some((index, cold.trailing_zeros()))
    }

    /// Maps a region for the class at index `place`, sized as if `mapped` bytes of such slots were
    /// mapped already.
    fn grow(&mut self, place: usize, mapped: usize) -> Option<()> {
        let class = &mut self.classes[place];
        let region = Region::map(class.slot_size, mapped)?;
        class.mapped += region.slots * class.slot_size;
        class.cold.push(self.regions.len() as u32);
        self.regions.push(region);
        Some(())
    }

    /// Makes a slot idle. The slot holds no pages.
    fn put_cold(&mut self, index: u32, bit: u64) {
        let region = &mut self.regions[index as usize];
        region.taken &= !bit;
        region.warm &= !bit;
        if region.cold().is_power_of_two() {
            let slot_size = region.slot_size;
            self.class(slot_size).cold.push(index);
        }
    }

    /// The class of a slot size in use.
    fn class(&mut self, slot_size: usize) -> &mut Class {
        let class = self.classes.iter_mut().find(|class| class.slot_size == slot_size);
        class.expect("a slot's size has a class")
    }
}

/// Makes sure that slots of `slot_size` are idle, so that a signal handler can take one without
/// allocating.
///
/// The handler may have interrupted the allocator.
pub(crate) fn map_ahead(slot_size: usize) {
    const SLOTS_AHEAD: usize = 16;
    let pool = &mut *lock();
    let place = pool.place_of_class(slot_size);
    let class = &mut pool.classes[place];
    class.warm.reserve(SLOTS_AHEAD);
    let cold = class.cold.iter().map(|&index| pool.regions[index as usize].cold().count_ones());
    if cold.sum::<u32>() as usize + class.warm.len() < SLOTS_AHEAD {
        // If memory is short, each slot is mapped when it is taken.
        let _ = pool.grow(place, SLOTS_AHEAD * slot_size);
    }
}

/// The contents of the stack pool at one moment, in stacks and bytes.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolUse {
    /// Number of stacks handed out: running Rust code, suspended, or spares of a thread.
    pub in_use: usize,
    /// Number of idle stacks still holding pages.
    pub idle: usize,
    /// Address space of all stacks ever made, in bytes, guards included. Untouched parts of it use
    /// no memory.
    pub reserved_bytes: usize,
}

/// The contents of the pool now.
pub(crate) fn usage() -> PoolUse {
    let pool = lock();
    let reserved_bytes = pool.regions.iter().map(|r| r.slots * r.slot_size).sum();
    PoolUse { in_use: pool.in_use, idle: pool.warm, reserved_bytes }
}

/// The use of a stack. It decides the place of the stack's base in the top pages (the colour).
///
/// Reports, the search for abandoned calls and the end of a thread look at it, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An upcall, or deep recursion.
    Upcall,
    /// A fiber.
    Fiber,
}

/// Takes a stack out of the pool for thread `id`, in a slot of `slot_size` bytes.
///
/// The caller is at `sp`. `None` if there is no memory for the stack.
pub(crate) fn take(
    slot_size: usize,
    sp: usize,
    purpose: Purpose,
    id: ThreadId,
) -> Option<&'static StackHeader> {
    let pool = &mut *lock();
    let (index, slot) = pool.idle_slot(slot_size)?;
    let region = &mut pool.regions[index as usize];
    let bit = 1 << slot;
    let low = region.low.wrapping_add(slot as usize * slot_size);
    if region.guarded & bit == 0 {
        // SAFETY: nothing is kept at the low end of a free slot, now or later, so it can be made
        // inaccessible.
        let is_guarded = unsafe {
            settings().guard_pages == GuardPages::Auto && sys::guard_by_advice(low, GUARD)
                || sys::guard(low, GUARD)
        };
        if !is_guarded {
            pool.put_cold(index, bit);
            return None;
        }
        region.guarded |= bit;
        // Never undone: slots stay stacks.
        sanitizer::stack_made(low.wrapping_add(GUARD), slot_size - GUARD);
    }
    if region.warm & bit == 0 {
        let (low, size) = (low.wrapping_add(GUARD), slot_size - GUARD);
        if !sys::commit_stack(low, size) {
            pool.put_cold(index, bit);
            return None;
        }
        sys::lock(region.locks, low, size);
    }
    region.taken |= bit;
    region.warm &= !bit;
    pool.in_use += 1;
    pool.kept.taken(pool.in_use);
    pool.epoch = pool.epoch.wrapping_add(EPOCHS_OF_A_USE);
    let epoch = pool.epoch;
    let high = low.wrapping_add(slot_size);
    sanitizer::is_free(low as usize + GUARD, high as usize);
    let top = high.wrapping_sub(2 * size_of::<StackHeader>());
    let header = top.wrapping_sub(colour(top as usize, sp, purpose)).cast::<StackHeader>();
    // SAFETY: `header` and `end` are in the mapped high end of the slot, reserved for them. They
    // are aligned because the slot's end and the colour are. The trailer holds zeros or the words
    // of the last user. The slot was free, so nobody else writes here, and nobody reads more than
    // the trailer.
    unsafe {
        let end = &*high.cast::<SlotTrailer>().sub(1);
        header.write(StackHeader {
            low: Cell::new(low as usize + GUARD),
            system_sp: AtomicUsize::new(0),
            beneath_resumer: Cell::new(0),
            owner: Cell::new(id),
            next: Published::null(),
            fiber: Published::null(),
            name: Published::null(),
            waits: CurrentWait::none(),
            upcall: CurrentUpcallCell::new(),
            region: Cell::new(index),
            slot: Cell::new(slot as u8),
            c_stays: Cell::new(CStays::No),
            tracks_resumer: Cell::new(false),
            resumed_at: AtomicUsize::new(0),
            is_spare_size: Cell::new(false),
            is_tasks: Cell::new(false),
            poll_deferred: Cell::new(false),
            purpose: Cell::new(purpose),
            seems_abandoned: Cell::new(false),
            epoch: Cell::new(epoch),
            system_epoch: Cell::new(0),
            os_bounds: OsBounds::of_stack(low as usize + GUARD, header as usize),
            system_bounds: OsBoundsRef::none(),
            // For the sanitizer alone: reading a cold page before the write is one more fault.
            told: sanitizer::Told::of_idle(|| end.header.load(Relaxed)),
        });
        end.header.store(header, Relaxed);
        end.owner.store(owner(), Relaxed);
        end.user.store(id.serial, Relaxed);
        Some(&*header)
    }
}

/// The distance from `top` down to the base of a stack with a caller at `sp`.
///
/// It puts the base as near to half a page off `sp` as the purpose allows.
fn colour(top: usize, sp: usize, purpose: Purpose) -> usize {
    let best = top.wrapping_sub(sp).wrapping_add(COLOURS / 2) & (COLOURS - align_of::<StackHeader>());
    match purpose {
        Purpose::Upcall => best,
        Purpose::Fiber if best < FIBER_COLOURS => best,
        Purpose::Fiber if best < (COLOURS + FIBER_COLOURS) / 2 => FIBER_COLOURS - align_of::<StackHeader>(),
        Purpose::Fiber => 0,
    }
}

/// SP at which downcalls from the pooled stack around `sp` continue.
///
/// The stack may be another thread's. `None` if `sp` is on no pooled stack, or on one just given
/// back.
pub(crate) fn system_sp_at(sp: usize) -> Option<usize> {
    let pool = lock();
    let offset = |region: &Region| sp.wrapping_sub(region.low as usize);
    let region = pool.regions.iter().find(|region| offset(region) < region.slots * region.slot_size)?;
    let slot = offset(region) / region.slot_size;
    if region.taken & (1 << slot) == 0 {
        return None;
    }
    let high = region.low.wrapping_add((slot + 1) * region.slot_size);
    // SAFETY: the slot is taken, and cannot be given back while the lock is held. So its
    // StackHeader is valid.
    let header = unsafe { &*(*high.cast::<SlotTrailer>().sub(1)).header.load(Relaxed) };
    Some(header.system_sp.load(Relaxed))
}

/// Calls `look` for each stack handed out, under the pool's lock.
pub(crate) fn for_each_taken(mut look: impl FnMut(&'static StackHeader)) {
    for region in &lock().regions {
        let mut remaining = region.taken;
        while remaining != 0 {
            let slot = remaining.trailing_zeros() as usize;
            remaining &= remaining - 1;
            let high = region.low.wrapping_add((slot + 1) * region.slot_size);
            // SAFETY: the slot is taken, and cannot be given back while the lock is held. So its
            // StackHeader is valid.
            look(unsafe { &*(*high.cast::<SlotTrailer>().sub(1)).header.load(Relaxed) });
        }
    }
}

/// Returns a stack to the pool. Nothing runs on it any more.
pub(crate) fn give_back(stack: &'static StackHeader) {
    let pool = &mut *lock();
    let kept_bytes = pool.kept.bytes(pool.in_use);
    let (index, slot) = (stack.region.get(), u32::from(stack.slot.get()));
    let bit = 1 << slot;
    let region = &mut pool.regions[index as usize];
    assert!(region.taken & bit != 0, "a stack is returned to the pool once");
    let slot_size = region.slot_size;
    let high = region.low.wrapping_add((slot as usize + 1) * slot_size);
    // SAFETY: the slot was taken, so its mapped end holds a trailer. All accesses to it are atomic.
    unsafe { &*high.cast::<SlotTrailer>().sub(1) }.user.store(0, Relaxed);
    let keeps_pages = slot_size <= kept_bytes.saturating_sub(pool.warm_bytes);
    pool.in_use -= 1;
    if keeps_pages {
        region.taken &= !bit;
        region.warm |= bit;
        pool.warm += 1;
        pool.warm_bytes += slot_size;
        pool.class(slot_size).warm.push((index, slot));
    } else {
        // SAFETY: nothing runs on the stack, and the next user writes a new StackHeader. The lock
        // is held, so nobody has taken the stack yet.
        unsafe { sys::give_back(region.locks, stack.low.get() as *mut u8, slot_size - GUARD) };
        pool.put_cold(index, bit);
    }
}

impl Region {
    /// Maps a region of slots of `slot_size` and describes it to stackbounds.
    ///
    /// `mapped` bytes of such slots exist already. If memory is short, the region has one slot.
    fn map(slot_size: usize, mapped: usize) -> Option<Region> {
        let slots = (mapped.clamp(FIRST_REGION, REGION) / slot_size).clamp(1, SLOTS);
        Self::map_slots(slot_size, slots).or_else(|| Self::map_slots(slot_size, 1))
    }

    /// Maps a region of exactly `slots` slots and describes it to stackbounds.
    fn map_slots(slot_size: usize, slots: usize) -> Option<Region> {
        let (low, locks) = sys::reserve(slots.checked_mul(slot_size)?, slot_size)?;
        let has_trailer = |slot| sys::commit(low.wrapping_add(slot * slot_size).wrapping_sub(TOP), TOP);
        if !(1..=slots).all(has_trailer) {
            // SAFETY: the mapping is ours, and nobody knows of it.
            unsafe { sys::guard(low, slots * slot_size) };
            return None;
        }
        // SAFETY: the mapping is ours, writable, and never unmapped. Each slot is described without
        // its guard, and the guard is installed before the slot's first use.
        match unsafe { register_slots(low, slots, slot_size, GUARD) } {
            Ok(registration) => std::mem::forget(registration),
            Err(error) => {
                warn(format_args!(
                    "new memory for stacks lies where a stack is still registered, which must have been unmapped: {error}"
                ));
                return None;
            }
        }
        Some(Region { low, slot_size, slots, taken: 0, warm: 0, guarded: 0, locks })
    }
}

/// Identifies this pool's slots among those of other versions of upcall in the process.
pub(super) fn owner() -> usize {
    ptr::from_ref(&POOL) as usize
}

fn lock() -> Held<Pool> {
    sync::hold(&POOL)
}

/// Holds the pool's lock, so that the pool does not change.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    lock()
}

/// The pool's lock, for forks.
pub(crate) fn lock_word() -> &'static Word {
    POOL.word()
}
