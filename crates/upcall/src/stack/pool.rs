//! The stack pool: every stack that Rust code runs on when the caller's own will not do.
//!
//! Stacks live in slots of a power-of-two size, slots in regions, which are mapped once and described to
//! stackbounds as one range each. A thread keeps a few spare stacks to itself (`thread::Hot`), so
//! the warm path takes no lock; the rest is here, under one. Idle stacks beyond a limit give
//! their pages back and keep only their addresses. Stacks in use are not limited: a host with 10,000 suspended upcalls needs 10,000.

use std::cell::Cell;
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use super::{Control, Mark, SlotEnd, sanitizer, sys};
use crate::config::settings;
use crate::quiet::report;
use crate::shown::{Shown, Waits};
use crate::sync;

/// The guard below each stack: 64 KiB, more than one page for the sake of C code, whose larger frames are
/// not probed page by page as Rust's are.
pub(crate) const GUARD: usize = 64 << 10;
/// Stacks are coloured: their bases lie at different places in a page, half a page away from the frames that they are first
/// used from. Processors take a load for dependent on an earlier store whose address agrees with it in the low 12 bits;
/// stacks begin at page boundaries, so frames of two stacks easily agree there, and a crossing then took 15 ns in place of 9.
const COLOURS: usize = 4096;
/// Stacks of fibers, of which there may be a million, each parked with less than a page of frames, keep to a part of their top page.
const FIBER_COLOURS: usize = 1024;
/// What a slot holds besides guard and frames, at most.
const OVERHEAD: usize = COLOURS + 2 * size_of::<Control>();
/// A region holds this many bytes of small stacks, or one large stack.
const REGION: usize = 16 << 20;
/// Slots up to this size keep their pages when they are idle, as far as the limit on idle stacks allows.
const KEPT: usize = 1 << 20;
/// Slots in a region at most: bits in a word.
const SLOTS: usize = u64::BITS as usize;

/// The smallest slot that leaves `bytes` for frames; `None` if there is no such size.
pub(crate) fn slot_size_for(bytes: usize) -> Option<usize> {
    let size = bytes.checked_add(GUARD + OVERHEAD)?;
    if size > isize::MAX as usize / 4 { None } else { Some(size.next_power_of_two().max(2 * GUARD)) }
}

struct Region {
    low: *mut u8,
    slot_size: usize,
    slots: usize,
    /// A bit a slot: handed out.
    taken: u64,
    /// Idle, but holding on to its pages.
    warm: u64,
    /// Has its guard, for ever.
    guarded: u64,
}

/// The idle slots of one size, so that taking one does not search.
struct Class {
    slot_size: usize,
    /// Those that hold on to their pages: region and slot, the newest last.
    warm: Vec<(u32, u32)>,
    /// Regions with others, in no order.
    cold: Vec<u32>,
}

// SAFETY: a Region is bookkeeping about memory that belongs to the pool, and is used under its lock only.
unsafe impl Send for Region {}

struct Pool {
    regions: Vec<Region>,
    classes: Vec<Class>,
    in_use: usize,
    warm: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { regions: Vec::new(), classes: Vec::new(), in_use: 0, warm: 0 });

impl Region {
    /// The slots that are idle and hold no pages.
    fn cold(&self) -> u64 {
        !(self.taken | self.warm) & (u64::MAX >> (SLOTS - self.slots))
    }
}

impl Pool {
    /// Finds an idle slot, mapping a region if there is none, and removes it from its class.
    fn idle_slot(&mut self, slot_size: usize) -> Option<(u32, u32)> {
        let index = match self.classes.iter().position(|class| class.slot_size == slot_size) {
            Some(index) => index,
            None => {
                self.classes.push(Class { slot_size, warm: Vec::new(), cold: Vec::new() });
                self.classes.len() - 1
            }
        };
        let class = &mut self.classes[index];
        if let Some(slot) = class.warm.pop() {
            self.warm -= 1;
            return Some(slot);
        }
        if class.cold.is_empty() {
            let region = Region::map(slot_size)?;
            class.cold.push(self.regions.len() as u32);
            self.regions.push(region);
        }
        let index = *class.cold.last()?;
        let cold = self.regions[index as usize].cold();
        if cold.is_power_of_two() {
            class.cold.pop();
        }
        Some((index, cold.trailing_zeros()))
    }

    /// Makes a slot idle that holds no pages.
    fn put_cold(&mut self, index: u32, bit: u64) {
        let region = &mut self.regions[index as usize];
        region.taken &= !bit;
        region.warm &= !bit;
        if region.cold().is_power_of_two() {
            let slot_size = region.slot_size;
            self.class(slot_size).cold.push(index);
        }
    }

    /// The class of a slot that there is.
    fn class(&mut self, slot_size: usize) -> &mut Class {
        let class = self.classes.iter_mut().find(|class| class.slot_size == slot_size);
        class.expect("a slot's size has a class")
    }
}

/// What the pool holds at one moment, in stacks and bytes.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolUse {
    /// Stacks handed out: running Rust code, suspended, or spares of a thread.
    pub in_use: usize,
    /// Idle stacks that still hold pages.
    pub idle: usize,
    /// Address space of all stacks ever made, guards included. Untouched parts of it cost nothing.
    pub reserved_bytes: usize,
}

pub(crate) fn usage() -> PoolUse {
    let pool = lock();
    let reserved_bytes = pool.regions.iter().map(|r| r.slots * r.slot_size).sum();
    PoolUse { in_use: pool.in_use, idle: pool.warm, reserved_bytes }
}

/// What a stack is taken for: the difference is where in its top pages its base lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Upcalls, or deep recursion.
    Upcall,
    /// A fiber.
    Fiber,
}

/// Takes a stack out of the pool whose slot has `slot_size` bytes, for a caller at `sp` on the thread with that mark; `None` when there is no
/// memory for it.
pub(crate) fn take(slot_size: usize, sp: usize, purpose: Purpose, mark: Mark) -> Option<&'static Control> {
    let pool = &mut *lock();
    let (index, slot) = pool.idle_slot(slot_size)?;
    let region = &mut pool.regions[index as usize];
    let bit = 1 << slot;
    let low = region.low.wrapping_add(slot as usize * slot_size);
    if region.guarded & bit == 0 {
        // SAFETY: the low end of a free slot holds nothing, and from now on never will.
        if !unsafe { sys::guard(low, GUARD, settings().guard_pages) } {
            pool.put_cold(index, bit);
            return None;
        }
        region.guarded |= bit;
        // Never taken back: slots stay stacks.
        sanitizer::stack_made(low.wrapping_add(GUARD), slot_size - GUARD);
    }
    region.taken |= bit;
    region.warm &= !bit;
    pool.in_use += 1;
    let high = low.wrapping_add(slot_size);
    sanitizer::is_free(low as usize + GUARD, high as usize);
    let top = high.wrapping_sub(2 * size_of::<Control>());
    let control = top.wrapping_sub(colour(top as usize, sp, purpose)).cast::<Control>();
    // SAFETY: the high end of a slot is mapped and kept for its Control, aligned because the slot's end and the colour are,
    // and for the Control's address; the slot was free, so nobody else writes it. Its end holds zeros, or the last Control's address.
    unsafe {
        let end = high.cast::<SlotEnd>().sub(1);
        control.write(Control {
            low: Cell::new(low as usize + GUARD),
            system_sp: AtomicUsize::new(0),
            beneath_resumer: Cell::new(0),
            mark: Cell::new(mark),
            next: Shown::null(),
            fiber: Shown::null(),
            name: Shown::null(),
            waits: Waits::none(),
            region: Cell::new(index),
            slot: Cell::new(slot as u8),
            has_c: Cell::new(false),
            follows: Cell::new(false),
            runs: Cell::new(false),
            is_spare_size: Cell::new(false),
            purpose: Cell::new(purpose),
            seems_left: Cell::new(false),
            told: sanitizer::Told::of_idle((*end).control),
        });
        end.write(SlotEnd { control, owner: owner() });
        Some(&*control)
    }
}

/// How far below `top` the base of a stack lies whose caller is at `sp`: as near half a page off `sp` as the purpose allows.
fn colour(top: usize, sp: usize, purpose: Purpose) -> usize {
    let best = top.wrapping_sub(sp).wrapping_add(COLOURS / 2) & (COLOURS - align_of::<Control>());
    match purpose {
        Purpose::Upcall => best,
        Purpose::Fiber if best < FIBER_COLOURS => best,
        Purpose::Fiber if best < (COLOURS + FIBER_COLOURS) / 2 => FIBER_COLOURS - align_of::<Control>(),
        Purpose::Fiber => 0,
    }
}

/// Where downcalls from the pooled stack around `sp` continue, for those who look at another thread: `sp` may be on no pooled stack, or on one
/// that was just given back.
pub(crate) fn system_sp_at(sp: usize) -> Option<usize> {
    let pool = lock();
    let offset = |region: &Region| sp.wrapping_sub(region.low as usize);
    let region = pool.regions.iter().find(|region| offset(region) < region.slots * region.slot_size)?;
    let slot = offset(region) / region.slot_size;
    if region.taken & (1 << slot) == 0 {
        return None;
    }
    let high = region.low.wrapping_add((slot + 1) * region.slot_size);
    // SAFETY: the slot is taken, and cannot be given back while the lock is held: its Control is valid.
    let control = unsafe { &*(*high.cast::<SlotEnd>().sub(1)).control };
    Some(control.system_sp.load(Relaxed))
}

/// Calls `look` for each stack that is handed out.
pub(crate) fn for_each_taken(mut look: impl FnMut(&'static Control)) {
    for region in &lock().regions {
        let mut left = region.taken;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let high = region.low.wrapping_add((slot + 1) * region.slot_size);
            // SAFETY: as in `system_sp_at`.
            look(unsafe { &*(*high.cast::<SlotEnd>().sub(1)).control });
        }
    }
}

/// Returns a stack that nothing runs on any more.
pub(crate) fn give_back(stack: &'static Control) {
    let (mut pool, idle) = (lock(), settings().idle_stacks);
    let pool = &mut *pool;
    let (index, slot) = (stack.region.get(), u32::from(stack.slot.get()));
    let bit = 1 << slot;
    let enough = pool.warm >= idle;
    let region = &mut pool.regions[index as usize];
    assert!(region.taken & bit != 0, "a stack is returned to the pool once");
    let slot_size = region.slot_size;
    let keeps_pages = !enough && slot_size <= KEPT;
    pool.in_use -= 1;
    if keeps_pages {
        region.taken &= !bit;
        region.warm |= bit;
        pool.warm += 1;
        pool.class(slot_size).warm.push((index, slot));
    } else {
        // SAFETY: nothing runs on the stack, and its Control is written anew when it is taken again. Done under the
        // lock, so nobody has taken it yet.
        unsafe { sys::give_back(stack.low.get() as *mut u8, slot_size - GUARD) };
        pool.put_cold(index, bit);
    }
}

impl Region {
    /// A region of slots of `slot_size`, described to stackbounds. Where memory is short, one slot has to do.
    fn map(slot_size: usize) -> Option<Region> {
        let slots = (REGION / slot_size).clamp(1, SLOTS);
        Self::map_slots(slot_size, slots).or_else(|| Self::map_slots(slot_size, 1))
    }

    fn map_slots(slot_size: usize, slots: usize) -> Option<Region> {
        let low = sys::reserve(slots.checked_mul(slot_size)?, slot_size)?;
        // SAFETY: the mapping is ours, writable, and never unmapped. Each slot's guard is left out of it, and
        // is installed before the slot is first used.
        match unsafe { stackbounds::register_slots(low, slots, slot_size, GUARD) } {
            Ok(registration) => std::mem::forget(registration),
            Err(error) => {
                report(format_args!(
                    "new memory for stacks lies where a stack is still registered, which must have been unmapped: {error}"
                ));
                return None;
            }
        }
        Some(Region { low, slot_size, slots, taken: 0, warm: 0, guarded: 0 })
    }
}

/// What tells this pool's slots from those of another upcall in the process.
pub(super) fn owner() -> usize {
    ptr::from_ref(&POOL) as usize
}

fn lock() -> MutexGuard<'static, Pool> {
    sync::lock(&POOL)
}

/// Holds the pool as it is.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    lock()
}
