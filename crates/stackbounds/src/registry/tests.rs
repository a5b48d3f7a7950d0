use super::*;
use std::sync::atomic::AtomicBool;

// No stack has these addresses: nothing is mapped there, with 64 bits or 32. Each test uses a part
// of its own, since the process has one registry.
fn space(part: usize) -> usize {
    if usize::BITS == 64 { usize::MAX / 2 + part * (1 << 40) } else { part << 24 }
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
    assert_eq!(stack, Found { low: at + 0x1000, high: at + 0x2000, kind: RangeKind::Stack });
    assert_eq!(find(at + 0x1fff).0, stack);
    assert_eq!(find(at + 0x2000).0.low, at + 0x2000);
    let gap = find(at + 0x3fff).0;
    assert_eq!(gap, Found { low: at + 0x3000, high: at + 0x4000, kind: RangeKind::Gap });
    remove(at + 0x2000);
    assert_eq!(find(at + 0x2fff).0, Found { low: at + 0x2000, high: at + 0x4000, kind: RangeKind::Gap });
    remove(at + 0x1000);
    remove(at + 0x4000);
    assert!(find(at + 0x1000).0.kind == RangeKind::Gap);
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
    let third = Found { low: at + 0x24000, high: at + 0x30000, kind: RangeKind::Slot };
    assert_eq!(find(at + 0x24000).0, third);
    assert_eq!(find(at + 0x2ffff).0, third);
    let guard = Found { low: at + 0x20000, high: at + 0x24000, kind: RangeKind::Gap };
    assert_eq!(find(at + 0x23fff).0, guard);
    remove(at);
}

#[test]
fn a_thousand_in_any_order_agree_with_a_plain_model() {
    let at = space(4);
    let mut model = std::collections::BTreeMap::new();
    let mut seed = 0x9e37_79b9_u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let low = at + ((seed >> 33) % 1000) as usize * 0x100;
        match model.remove(&low) {
            Some(()) => remove(low),
            None => {
                insert(range(low, 0x80)).unwrap();
                model.insert(low, ());
            }
        }
        let probe = at + (seed >> 40) as usize % (1000 * 0x100);
        let expected = model.range(..=probe).next_back().is_some_and(|(low, ())| probe < low + 0x80);
        assert_eq!(find(probe).0.kind == RangeKind::Stack, expected);
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
                assert_eq!(
                    found,
                    Found { low: at + 0x80_0000, high: at + 0x80_1000, kind: RangeKind::Stack }
                );
                let found = find(at + 0x4400).0;
                assert!(found.kind == RangeKind::Gap || found.high - found.low == 0x800, "{found:x?}");
            }
        });
    });
    remove(at + 0x80_0000);
}
