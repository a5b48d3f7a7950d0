//! Stacks that their owners described: found by address, among 10,000 in tens of nanoseconds, without a lock.
//!
//! The set is an array of blocks, each a short sorted array of ranges, itself sorted. A writer holds
//! a lock, never changes what readers can see, and publishes by counting [`VERSION`] up: its parity
//! says which of two tops is the set. A reader copies what it needs with plain atomic loads and then looks
//! whether the version is still the one that it started from; if it is, no memory that it read had been
//! reused, and the answer is that of one moment. Rule: **memory that was ever published stays a block or a top for
//! ever**: it is reused for newer versions, never freed, so a late reader reads old
//! numbers at worst. A reader repeats only when a writer has finished meanwhile; a writer that is stopped half-way
//! (or is gone, in the child of a fork) holds up no reader.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicUsize, fence};
use std::sync::{Mutex, MutexGuard};

use crate::fork;

/// Ranges a block holds at most. Full blocks split in two halves.
const BLOCK: usize = 64;
/// Neighbouring blocks that hold no more than this between them are joined.
const JOIN: usize = BLOCK / 2;

/// One described range: a single stack, or an array of equal slots each holding one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub low: usize,
    pub high: usize,
    pub slots: Slots,
}

/// How a range divides into stacks, packed in one word: log2 of the slot size in the low 12
/// bits, and the bytes of guard at the low end of each slot (whole pages) in the rest. 0: one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots(usize);

impl Slots {
    pub const ONE_STACK: Slots = Slots(0);

    /// Slots of `size` bytes, a power of two, whose lowest `guard` bytes, a multiple of 4 KiB, are
    /// not stack.
    pub fn of(size: usize, guard: usize) -> Self {
        assert!(size.is_power_of_two() && guard % 4096 == 0 && guard < size, "slot layout");
        Slots(guard | size.trailing_zeros() as usize)
    }

    /// The part of `low..high` around `sp` that is one stack, or that certainly is none, and which.
    #[inline]
    fn narrow(self, low: usize, high: usize, sp: usize) -> Found {
        if self == Self::ONE_STACK {
            return Found { low, high, kind: Kind::Stack };
        }
        let shift = self.0 & 0xfff;
        let slot = low + (((sp - low) >> shift) << shift);
        let usable = slot + (self.0 & !0xfff);
        if sp < usable {
            Found { low: slot, high: usable, kind: Kind::Gap }
        } else {
            Found { low: usable, high: slot + (1 << shift), kind: Kind::Slot }
        }
    }
}

/// What the registry knows about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `low..high` contains the address, and the answer is the same for every address in it.
    pub low: usize,
    pub high: usize,
    pub kind: Kind,
}

/// What a range is to the registry. Not public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Between described stacks: certainly none of them.
    Gap,
    /// A stack described by itself.
    Stack,
    /// A stack in an array of slots.
    Slot,
}

/// A range that is in the way of a new one.
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

/// The number of `lows`, which ascend, that are at or below `sp`. Without a branch on what is found, since addresses come in no order
/// that a processor could predict; and counting through the last few, whose loads do not wait for each other.
#[inline]
fn rank(lows: &[AtomicUsize], sp: usize) -> usize {
    const FEW: usize = 24;
    let at_or_below = |low: &AtomicUsize| usize::from(low.load(Relaxed) <= sp);
    let (mut base, mut left) = (0, lows.len());
    while left > FEW {
        let half = left / 2;
        base += half * at_or_below(&lows[base + half]);
        left -= half;
    }
    base + lows[base..base + left].iter().map(at_or_below).sum::<usize>()
}

/// The array of blocks, with the lowest address of each beside it.
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

/// One of the two tops: a table that is only ever replaced by a larger one, and how much of it is used.
struct Top {
    len: AtomicUsize,
    table: AtomicPtr<Table>,
}

impl Top {
    const fn new() -> Self {
        Self { len: AtomicUsize::new(0), table: AtomicPtr::new(core::ptr::null_mut()) }
    }

    fn table(&self) -> Option<&'static Table> {
        // SAFETY: null, or a table that was leaked when it was stored here (`Registry::publish`) and so
        // lives for ever; its fields are atomics. Acquire pairs with the release store there.
        unsafe { self.table.load(Acquire).as_ref() }
    }
}

static VERSION: AtomicUsize = AtomicUsize::new(0);
static TOPS: [Top; 2] = [Top::new(), Top::new()];
static WRITER: Mutex<Registry> = Mutex::new(Registry { blocks: Vec::new(), spare: Vec::new() });

/// Counts every change of the set: an answer of [`find`] holds for as long as this stays as it was.
#[inline]
pub(crate) fn version() -> usize {
    VERSION.load(Acquire)
}

/// What is known about `sp`, and the version for which that holds.
pub(crate) fn find(sp: usize) -> (Found, usize) {
    loop {
        let version = VERSION.load(Acquire);
        let found = look(&TOPS[version & 1], sp);
        // Orders the loads above before the load below: whoever read a value written for a later
        // version (after that writer's release fence) sees that the version has moved on.
        fence(Acquire);
        if VERSION.load(Relaxed) == version {
            return (found, version);
        }
    }
}

fn look(top: &Top, sp: usize) -> Found {
    let gap = |low, high| Found { low, high, kind: Kind::Gap };
    let Some(table) = top.table() else { return gap(0, usize::MAX) };
    let len = top.len.load(Relaxed).min(table.first.len());
    let i = rank(&table.first[..len], sp);
    let next_block = || table.first[..len].get(i).map_or(usize::MAX, |first| first.load(Relaxed));
    if i == 0 {
        return gap(0, next_block());
    }
    // SAFETY: an entry below `len` was stored before `len` was raised, so it is null only if this reader
    // mixes versions; otherwise it is a leaked block. Rule: published memory stays a block for ever.
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

/// The writer's side, behind the lock.
pub(crate) struct Registry {
    /// The blocks of the newest version, in order, none of them empty.
    blocks: Vec<&'static Block>,
    /// Blocks of older versions only.
    spare: Vec<&'static Block>,
}

/// Adds a range, unless it overlaps one that is there.
pub(crate) fn insert(range: Range) -> Result<(), Clash> {
    fork::watch();
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

/// Takes out the range that starts at `low`.
///
/// # Panics
/// If there is none: a `Registration` was dropped twice, or this module lost a range.
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

/// Keeps the registry as it is until the result is dropped.
pub(crate) fn lock() -> MutexGuard<'static, Registry> {
    // A panic under the lock can only come before anything was changed.
    WRITER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Registry {
    /// The block that `low` belongs to, and how many of its ranges start at or below `low`.
    fn position(&self, low: usize) -> Option<(usize, usize)> {
        let after = self.blocks.partition_point(|block| block.low[0].load(Relaxed) <= low);
        let b = after.saturating_sub(1);
        self.blocks.get(b).map(|block| (b, rank(block.lows(), low)))
    }

    fn ranges(&self, b: usize) -> Vec<Range> {
        let block = self.blocks[b];
        (0..block.len.load(Relaxed)).map(|i| block.range(i)).collect()
    }

    /// Publishes a version in which `ranges` stand in the place of the blocks `at`.
    fn replace(&mut self, at: core::ops::Range<usize>, ranges: &[Range]) {
        // What is written from here on may reuse memory of the version before the newest. Orders the newest
        // version's store before those writes: the counterpart of the fence in `find`.
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
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    // Addresses that no stack of a 64-bit process has; each test takes a part of its own, since
    // the registry is one for the process.
    fn space(part: usize) -> usize {
        usize::MAX / 2 + part * (1 << 40)
    }

    fn range(low: usize, size: usize) -> Range {
        Range { low, high: low + size, slots: Slots::ONE_STACK }
    }

    #[test]
    fn finds_stacks_and_the_gaps_between_them() {
        let at = space(1);
        insert(range(at + 0x1000, 0x1000)).unwrap();
        insert(range(at + 0x4000, 0x1000)).unwrap();
        insert(range(at + 0x2000, 0x1000)).unwrap();
        let stack = find(at + 0x1000).0;
        assert_eq!(stack, Found { low: at + 0x1000, high: at + 0x2000, kind: Kind::Stack });
        assert_eq!(find(at + 0x1fff).0, stack);
        assert_eq!(find(at + 0x2000).0.low, at + 0x2000);
        let gap = find(at + 0x3fff).0;
        assert_eq!(gap, Found { low: at + 0x3000, high: at + 0x4000, kind: Kind::Gap });
        remove(at + 0x2000);
        assert_eq!(find(at + 0x2fff).0, Found { low: at + 0x2000, high: at + 0x4000, kind: Kind::Gap });
        remove(at + 0x1000);
        remove(at + 0x4000);
        assert!(find(at + 0x1000).0.kind == Kind::Gap);
    }

    #[test]
    fn overlaps_name_the_range_that_is_there() {
        let at = space(2);
        insert(range(at + 0x4000, 0x4000)).unwrap();
        let clash = Err(Clash { low: at + 0x4000, high: at + 0x8000 });
        for (low, size) in [(0x4000, 0x4000), (0x3000, 0x1001), (0x7fff, 1), (0x5000, 16), (0x1000, 0x9000)] {
            assert_eq!(insert(range(at + low, size)), clash, "{low:#x}+{size:#x}");
        }
        insert(range(at + 0x3000, 0x1000)).unwrap();
        insert(range(at + 0x8000, 0x1000)).unwrap();
        for low in [0x3000, 0x4000, 0x8000] {
            remove(at + low);
        }
    }

    #[test]
    fn an_array_of_slots_is_one_range_and_many_stacks() {
        let at = space(3);
        let slots = Slots::of(0x10000, 0x4000);
        insert(Range { low: at, high: at + 4 * 0x10000, slots }).unwrap();
        let third = Found { low: at + 0x24000, high: at + 0x30000, kind: Kind::Slot };
        assert_eq!(find(at + 0x24000).0, third);
        assert_eq!(find(at + 0x2ffff).0, third);
        let guard = Found { low: at + 0x20000, high: at + 0x24000, kind: Kind::Gap };
        assert_eq!(find(at + 0x23fff).0, guard);
        remove(at);
    }

    #[test]
    fn a_thousand_in_any_order_agree_with_a_plain_model() {
        let at = space(4);
        let mut model = std::collections::BTreeMap::new();
        let mut seed = 0x9e37_79b9_usize;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let low = at + ((seed >> 33) % 1000) * 0x100;
            match model.remove(&low) {
                Some(()) => remove(low),
                None => {
                    insert(range(low, 0x80)).unwrap();
                    model.insert(low, ());
                }
            }
            let probe = at + (seed >> 40) % (1000 * 0x100);
            let expected = model.range(..=probe).next_back().is_some_and(|(low, ())| probe < low + 0x80);
            assert_eq!(find(probe).0.kind == Kind::Stack, expected);
        }
        for low in model.into_keys() {
            remove(low);
        }
    }

    #[test]
    fn readers_see_whole_versions_while_writers_work() {
        let at = space(5);
        let stop = AtomicBool::new(false);
        // Never removed: every reader must find it at every moment, with these bounds.
        insert(range(at + 0x80_0000, 0x1000)).unwrap();
        std::thread::scope(|scope| {
            for part in 0..2 {
                let stop = &stop;
                scope.spawn(move || {
                    for round in 0..200 {
                        let lows = (0..300).map(|i| at + (2 * i + part) * 0x2000 + 0x100_0000 * (round % 2));
                        let lows: Vec<_> = lows.filter(|low| *low != at + 0x80_0000).collect();
                        lows.iter().for_each(|low| insert(range(*low, 0x800)).unwrap());
                        lows.iter().for_each(|low| remove(*low));
                    }
                    stop.store(true, Relaxed);
                });
            }
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let found = find(at + 0x80_0800).0;
                    assert_eq!(found, Found { low: at + 0x80_0000, high: at + 0x80_1000, kind: Kind::Stack });
                    let found = find(at + 0x4400).0;
                    assert!(found.kind == Kind::Gap || found.high - found.low == 0x800, "{found:x?}");
                }
            });
        });
        remove(at + 0x80_0000);
    }
}
