//! The registry of stacks that their owners described: lookups by address, without a lock.
//!
//! A lookup among 10,000 stacks takes tens of nanoseconds. The set is an array of blocks, sorted by
//! address. Each block is a short sorted array of ranges.
//!
//! ```text
//!             VERSION even            VERSION odd
//!                  │                      │
//!               TOPS[0]                TOPS[1]        the top of the newest version is the set
//!                  │                      │
//!                Table                  Table         lowest address of each block, and the block
//!               ┌──┼──┐                ┌──┼──┐
//!             Block …  Block         Block …  Block   up to 64 ranges each; shared where unchanged
//! ```
//!
//! A writer holds a lock and never changes memory visible to readers of the newest version. It
//! publishes a new version by incrementing [`VERSION`]. The parity of `VERSION` selects the top in
//! use.
//!
//! A reader copies the words that it needs by plain atomic loads. Then it compares the version with
//! the one at its start. If the version is the same, no memory was reused during the reads, and the
//! answer is that of one moment. Otherwise the reader repeats.
//!
//! Rule: **memory that was ever published stays a block or a top for ever.** It is reused for newer
//! versions and never freed, so a late reader reads old numbers at worst.
//!
//! A reader repeats only after a writer has finished. A writer that stopped half-way, or does not
//! exist in the child of a fork, holds up no reader.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicUsize, fence};

use crate::fork::{self, Guard, Lock, Word};

/// The most ranges in a block. A full block splits in two halves.
const BLOCK: usize = 64;
/// Two neighbouring blocks are joined if they hold no more ranges than this together.
const JOIN: usize = BLOCK / 2;

/// One described range: a single stack, or an array of equal slots, one stack each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub low: usize,
    pub high: usize,
    pub slots: Slots,
}

/// The layout of a range, packed in one word; 0 for a single stack.
///
/// The low 12 bits hold log2 of the slot size. The other bits hold the bytes of guard at the low
/// end of each slot (whole pages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots(usize);

impl Slots {
    pub const ONE_STACK: Slots = Slots(0);

    /// Slots of `size` bytes (a power of two), the lowest `guard` bytes (a multiple of 4 KiB) not
    /// stack.
    pub fn of(size: usize, guard: usize) -> Self {
        assert!(size.is_power_of_two() && guard % 4096 == 0 && guard < size, "slot layout");
        Slots(guard | size.trailing_zeros() as usize)
    }

    /// Narrows `low..high` to the one stack or the one guard around `sp`.
    #[inline]
    fn narrow(self, low: usize, high: usize, sp: usize) -> Found {
        if self == Self::ONE_STACK {
            return Found { low, high, kind: RangeKind::Stack };
        }
        let shift = self.0 & 0xfff;
        let slot = low + (((sp - low) >> shift) << shift);
        let usable = slot + (self.0 & !0xfff);
        if sp < usable {
            Found { low: slot, high: usable, kind: RangeKind::Gap }
        } else {
            Found { low: usable, high: slot + (1 << shift), kind: RangeKind::Slot }
        }
    }
}

/// The registry's knowledge of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// `low..high` contains the address, and every address in it has the same answer.
    pub low: usize,
    pub high: usize,
    pub kind: RangeKind,
}

/// A range of addresses with one kind throughout, in one version of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// The lowest address.
    pub low: usize,
    /// One past the highest address.
    pub high: usize,
    /// The kind of the range.
    pub kind: RangeKind,
    /// The [`version`] of the registry.
    pub version: usize,
}

impl Around {
    #[inline]
    pub(crate) fn contains(&self, sp: usize) -> bool {
        self.low <= sp && sp < self.high
    }
}

/// The kind of a range in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// No described stack: the space between them, or a slot's guard.
    Gap,
    /// A stack described by itself.
    Stack,
    /// A stack in an array of slots.
    Slot,
}

/// A registered range that overlaps a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    pub low: usize,
    pub high: usize,
}

struct Block {
    len: AtomicUsize,
    low: [AtomicUsize; BLOCK],
    high: [AtomicUsize; BLOCK],
    slots: [AtomicUsize; BLOCK],
}

impl Block {
    fn new() -> Self {
        let zeros = || [const { AtomicUsize::new(0) }; BLOCK];
        Self { len: AtomicUsize::new(0), low: zeros(), high: zeros(), slots: zeros() }
    }

    fn lows(&self) -> &[AtomicUsize] {
        // A reader that mixes versions may see any length.
        &self.low[..self.len.load(Relaxed).min(BLOCK)]
    }

    fn range(&self, i: usize) -> Range {
        Range {
            low: self.low[i].load(Relaxed),
            high: self.high[i].load(Relaxed),
            slots: Slots(self.slots[i].load(Relaxed)),
        }
    }

    fn fill(&self, ranges: &[Range]) {
        for (i, range) in ranges.iter().enumerate() {
            self.low[i].store(range.low, Relaxed);
            self.high[i].store(range.high, Relaxed);
            self.slots[i].store(range.slots.0, Relaxed);
        }
        self.len.store(ranges.len(), Relaxed);
    }
}

/// The number of addresses in `lows`, in ascending order, at or below `sp`.
///
/// Does not branch on the values: lookups come in an order that no processor could predict. At the
/// end it counts through the last few entries, whose loads do not wait for each other.
#[inline]
fn rank(lows: &[AtomicUsize], sp: usize) -> usize {
    const FEW: usize = 24;
    let at_or_below = |low: &AtomicUsize| usize::from(low.load(Relaxed) <= sp);
    let (mut base, mut remaining) = (0, lows.len());
    while remaining > FEW {
        let half = remaining / 2;
        base += half * at_or_below(&lows[base + half]);
        remaining -= half;
    }
    base + lows[base..base + remaining].iter().map(at_or_below).sum::<usize>()
}

/// The array of blocks, with the lowest address of each.
struct Table {
    first: Box<[AtomicUsize]>,
    block: Box<[AtomicPtr<Block>]>,
}

impl Table {
    fn with_room_for(blocks: usize) -> Self {
        Self {
            first: (0..blocks).map(|_| AtomicUsize::new(0)).collect(),
            block: (0..blocks).map(|_| AtomicPtr::default()).collect(),
        }
    }
}

/// One of the two tops: a table and the number of its entries in use.
///
/// The table is only ever replaced by a larger one.
struct Top {
    len: AtomicUsize,
    table: AtomicPtr<Table>,
}

impl Top {
    const fn new() -> Self {
        Self { len: AtomicUsize::new(0), table: AtomicPtr::new(core::ptr::null_mut()) }
    }

    fn table(&self) -> Option<&'static Table> {
        // SAFETY: the pointer is null, or points to a table that was leaked before it was stored
        // here (`Registry::publish`). So the table lives for ever. Its fields are atomics. Acquire
        // pairs with the release store there.
        unsafe { self.table.load(Acquire).as_ref() }
    }
}

static VERSION: AtomicUsize = AtomicUsize::new(0);
static TOPS: [Top; 2] = [Top::new(), Top::new()];
static WRITER: Lock<Registry> = Lock::new(Registry { blocks: Vec::new(), spare: Vec::new() });

/// Counts the changes of the set. An answer of [`described`] holds as long as this is unchanged.
#[inline(always)]
pub fn version() -> usize {
    VERSION.load(Acquire)
}

/// The registry's knowledge of any address, not only of stack pointers.
///
/// Uses neither the thread's cache nor the OS, so it may be called in any signal handler, on any
/// thread.
pub fn described(address: usize) -> Around {
    let (Found { low, high, kind }, version) = find(address);
    Around { low, high, kind, version }
}

/// Looks up `sp`. Returns the answer and its version.
fn find(sp: usize) -> (Found, usize) {
    loop {
        let version = VERSION.load(Acquire);
        let found = look(&TOPS[version & 1], sp);
        // Orders the loads above before the load below. If a load above read a value written for a
        // later version (after that writer's release fence), the load below sees the later version.
        fence(Acquire);
        if VERSION.load(Relaxed) == version {
            return (found, version);
        }
    }
}

fn look(top: &Top, sp: usize) -> Found {
    let gap = |low, high| Found { low, high, kind: RangeKind::Gap };
    let Some(table) = top.table() else { return gap(0, usize::MAX) };
    let len = top.len.load(Relaxed).min(table.first.len());
    let i = rank(&table.first[..len], sp);
    let next_block = || table.first[..len].get(i).map_or(usize::MAX, |first| first.load(Relaxed));
    if i == 0 {
        return gap(0, next_block());
    }
    // SAFETY: an entry below `len` was stored before `len` was raised, so only a reader that mixes
    // versions finds null. Any other value points to a leaked block. Rule: published memory stays a
    // block for ever.
    let Some(block) = (unsafe { table.block[i - 1].load(Acquire).as_ref() }) else {
        return gap(0, usize::MAX);
    };
    // 0 only for a reader that mixes versions.
    let n = rank(block.lows(), sp);
    let range = block.range(n.saturating_sub(1));
    if n > 0 && sp < range.high {
        return range.slots.narrow(range.low, range.high, sp);
    }
    gap(
        if n > 0 { range.high } else { 0 },
        block.lows().get(n).map_or_else(next_block, |low| low.load(Relaxed)),
    )
}

/// The writer's data, behind the lock.
pub(crate) struct Registry {
    /// The blocks of the newest version, in order, each non-empty.
    blocks: Vec<&'static Block>,
    /// Blocks used by older versions only.
    spare: Vec<&'static Block>,
}

/// Adds a range, unless it overlaps one in the set.
pub(crate) fn insert(range: Range) -> Result<(), Clash> {
    fork::watch(lock_word());
    let mut registry = lock();
    let Some((b, i)) = registry.position(range.low) else {
        registry.replace(0..0, &[range]);
        return Ok(());
    };
    let mut ranges = registry.ranges(b);
    let below = i.checked_sub(1).map(|i| ranges[i]);
    let above = ranges.get(i).copied().or_else(|| Some(registry.blocks.get(b + 1)?.range(0)));
    if let Some(clash) = below.filter(|r| range.low < r.high).or(above.filter(|r| r.low < range.high)) {
        return Err(Clash { low: clash.low, high: clash.high });
    }
    ranges.insert(i, range);
    registry.replace(b..b + 1, &ranges);
    Ok(())
}

/// Removes the range that starts at `low`.
///
/// # Panics
/// If no such range is in the set: a `Registration` was dropped twice, or this module lost a range.
pub(crate) fn remove(low: usize) {
    let mut registry = lock();
    let found = registry.position(low).filter(|&(_, i)| i > 0);
    let (b, i) = found.expect("a Registration's range is in the registry until it is dropped");
    let mut ranges = registry.ranges(b);
    assert_eq!(ranges[i - 1].low, low, "a Registration's range is in the registry until it is dropped");
    ranges.remove(i - 1);
    let mut end = b + 1;
    if registry.blocks.get(end).is_some_and(|next| next.len.load(Relaxed) + ranges.len() <= JOIN) {
        ranges.extend(registry.ranges(end));
        end += 1;
    }
    registry.replace(b..end, &ranges);
}

/// The registry, locked by the calling thread.
pub(crate) struct Locked {
    registry: Guard<'static, Registry>,
    // Declared last, to be dropped last.
    _held: Held,
}

/// Locks the registry until the result is dropped.
pub(crate) fn lock() -> Locked {
    HELD.set(true);
    let _held = Held(PhantomData);
    // A panic under the lock can only come before the first change.
    Locked { registry: WRITER.lock(), _held }
}

/// The registry's lock, for the fork handlers.
pub(crate) fn lock_word() -> &'static Word {
    WRITER.word()
}

impl Deref for Locked {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }
}

std::thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread holds the lock, or waits for it.
pub fn holds_lock() -> bool {
    HELD.get()
}

/// Marks the calling thread as a holder of the lock. Not `Send`: dropped on the same thread.
struct Held(PhantomData<*mut ()>);

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(false);
    }
}

impl Registry {
    /// The block that `low` belongs to, and the number of its ranges starting at or below `low`.
    fn position(&self, low: usize) -> Option<(usize, usize)> {
        let after = self.blocks.partition_point(|block| block.low[0].load(Relaxed) <= low);
        let b = after.saturating_sub(1);
        self.blocks.get(b).map(|block| (b, rank(block.lows(), low)))
    }

    fn ranges(&self, b: usize) -> Vec<Range> {
        let block = self.blocks[b];
        (0..block.len.load(Relaxed)).map(|i| block.range(i)).collect()
    }

    /// Publishes a version with `ranges` in place of the blocks `at`.
    fn replace(&mut self, at: core::ops::Range<usize>, ranges: &[Range]) {
        // The writes below may reuse memory of the version before the newest. Orders the newest
        // version's store before them: the counterpart of the fence in `find`.
        fence(Release);
        let parts = ranges.len().div_ceil(BLOCK).max(1);
        let new: Vec<&'static Block> = ranges
            .chunks(ranges.len().div_ceil(parts).max(1))
            .map(|part| {
                let block = self.spare.pop().unwrap_or_else(|| Box::leak(Box::new(Block::new())));
                block.fill(part);
                block
            })
            .collect();
        let old: Vec<_> = self.blocks.splice(at, new).collect();
        self.publish();
        self.spare.extend(old);
    }

    fn publish(&self) {
        let version = VERSION.load(Relaxed).wrapping_add(1);
        let top = &TOPS[version & 1];
        let table = match top.table() {
            Some(table) if table.first.len() >= self.blocks.len() => table,
            _ => {
                let table = Table::with_room_for((2 * self.blocks.len()).max(16));
                let table = Box::leak(Box::new(table));
                top.table.store(table, Release);
                table
            }
        };
        for (i, &block) in self.blocks.iter().enumerate() {
            table.first[i].store(block.low[0].load(Relaxed), Relaxed);
            table.block[i].store(core::ptr::from_ref(block).cast_mut(), Release);
        }
        top.len.store(self.blocks.len(), Relaxed);
        VERSION.store(version, Release);
    }
}

#[cfg(test)]
mod tests;
