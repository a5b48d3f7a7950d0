//! What a snapshot tells, as a tree, as a picture and serialised.

use std::sync::mpsc;

use upcall::report::{Direction, Stack, StackKind, Thread};
use upcall::{Fiber, LocalRuntime, Snapshot, downcall, downcall_on_fiber, enter, entry, snapshot, wait};

fn current(snapshot: &Snapshot) -> &Thread {
    snapshot.threads.iter().find(|thread| thread.current).expect("the thread is attached")
}

fn shop_total<R>(c: impl FnOnce() -> R) -> R {
    entry().stack(upcall::StackChoice::Pooled).enter(|| downcall(c)).unwrap()
}

fn shop_price<R>(c: impl FnOnce() -> R) -> R {
    enter(|| downcall(c)).unwrap()
}

#[test]
fn calls_have_the_names_of_their_functions_and_the_order_in_which_they_were_made() {
    let snapshot = shop_total(|| shop_price(snapshot));
    let calls = &current(&snapshot).calls;
    let told: Vec<_> = calls
        .iter()
        .map(|call| (call.direction, call.function.unwrap().split('<').next().unwrap()))
        .collect();
    use Direction::{Downcall, Upcall};
    let (total, price) = ("snapshot::shop_total", "snapshot::shop_price");
    assert_eq!(told, [(Upcall, total), (Downcall, total), (Upcall, price), (Downcall, price)], "{snapshot}");
    let text = snapshot.to_string();
    assert!(text.contains("1. C → Rust, snapshot::shop_total"), "{text}");
    assert!(text.contains("4. Rust → C, from snapshot::shop_price"), "{text}");
}

#[test]
fn an_outer_upcall_has_its_name_again_when_a_nested_one_has_returned() {
    let snapshot = shop_total(|| {
        shop_price(|| ());
        snapshot()
    });
    let upcalls: Vec<_> = current(&snapshot).calls.iter().filter_map(|call| call.function).collect();
    assert_eq!(upcalls.len(), 2, "{snapshot}");
    assert!(upcalls.iter().all(|name| name.starts_with("snapshot::shop_total")), "{snapshot}");
}

#[test]
fn stacks_have_bounds_headroom_and_their_deepest_use() {
    let snapshot = shop_total(snapshot);
    let stacks = &current(&snapshot).stacks;
    let here = &raw const snapshot as usize;
    if cfg!(stackbounds_no_query) {
        assert!(stacks.iter().any(|stack| stack.kind == StackKind::Undescribed && stack.left.is_none()));
    } else {
        let own = &stacks[0];
        assert_eq!(own.kind, StackKind::Own);
        assert!(own.contains(here), "{snapshot}");
        let left = own.left.expect("the thread's own call is on it");
        assert!(left < own.high - own.low && own.low + left < here, "{snapshot}");
        assert!(own.deepest.expect("pages are in memory") >= own.high - here, "{snapshot}");
    }
    let pooled: Vec<&Stack> = stacks.iter().filter(|stack| stack.kind == StackKind::Pooled).collect();
    assert_eq!(pooled.len(), 1, "{snapshot}");
    assert!(pooled[0].left.is_some_and(|left| left >= 128 << 10), "{snapshot}");
}

/// On the thread's own stack, where that is known.
#[test]
#[cfg(not(stackbounds_no_query))]
fn deep_use_is_seen_after_it_is_over() {
    #[inline(never)]
    fn deep(bytes: usize) -> u8 {
        let page = std::hint::black_box([1_u8; 4096]);
        if bytes <= page.len() { page[0] } else { deep(bytes - page.len()) + page[1] }
    }
    const DEEP: usize = 512 << 10;
    std::thread::spawn(|| {
        enter(|| deep(DEEP)).unwrap();
        let snapshot = snapshot();
        assert!(current(&snapshot).stacks[0].deepest.unwrap() > DEEP, "{snapshot}");
    })
    .join()
    .unwrap();
}

#[test]
fn fibers_have_their_names_and_what_they_wait_for() {
    let (sender, receiver) = async_channel::bounded::<u8>(1);
    let (seen, sees) = mpsc::channel();
    let reader = Fiber::builder().name("the <reader>").spawn(move || {
        seen.send(()).unwrap();
        enter(|| downcall_on_fiber(|| enter(|| wait(receiver.recv()).unwrap()).unwrap())).unwrap()
    });
    sees.recv().unwrap();
    let (snapshot, name) = loop {
        let snapshot = snapshot();
        let stacks = snapshot.threads.iter().flat_map(|thread| &thread.stacks);
        let named = stacks.filter(|stack| stack.name.as_deref() == Some("the <reader>")).cloned();
        let waits = named.filter_map(|stack| stack.fiber?.waits).next();
        if let Some(wait) = waits {
            assert!(wait.future.starts_with("async_channel::Recv"), "{wait}");
            assert!(wait.file.ends_with("snapshot.rs"), "{wait}");
            break (snapshot, wait.to_string());
        }
        std::thread::yield_now();
    };
    let text = snapshot.to_string();
    assert!(text.contains("fiber \"the <reader>\"") && text.contains(&name), "{text}");
    let map = snapshot.to_svg();
    assert!(map.contains("fiber \"the &lt;reader&gt;\""), "{map}");
    sender.send_blocking(7).unwrap();
    assert_eq!(reader.join().unwrap(), 7);
    assert!(!upcall::snapshot().to_string().contains("the <reader>"));
}

#[test]
fn a_thread_that_a_wait_blocks_says_for_what() {
    let (sender, receiver) = async_channel::bounded::<u8>(1);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| enter(|| wait(receiver.recv()).unwrap()).unwrap());
        loop {
            let snapshot = snapshot();
            let waiting = snapshot.threads.iter().filter_map(|thread| thread.waits.as_ref());
            if waiting.clone().any(|wait| wait.future.starts_with("async_channel::Recv")) {
                break;
            }
        }
        sender.send_blocking(1).unwrap();
        assert_eq!(waits.join().unwrap(), 1);
    });
    enter(|| wait(async {})).unwrap();
    assert_eq!(current(&snapshot()).waits, None);
}

/// Names come and go while others look at them.
#[test]
fn fibers_begin_and_end_meanwhile() {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = LocalRuntime::new().unwrap();
                    for i in 0..3000 {
                        let name = format!("fiber {i} with a name that is on the heap");
                        let fiber = Fiber::builder().name(name).build(upcall::yield_now).unwrap();
                        wait(fiber);
                    }
                    drop(runtime);
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            let snapshot = snapshot();
            let names = snapshot
                .threads
                .iter()
                .flat_map(|thread| &thread.stacks)
                .filter_map(|stack| stack.name.as_ref());
            for name in names {
                assert!(name.starts_with("fiber ") || name == "the <reader>", "{name}");
            }
        }
    });
}

#[test]
fn the_map_is_well_formed() {
    let map = shop_total(|| shop_price(|| snapshot().to_svg()));
    for tag in ["svg", "style", "text", "defs", "marker"] {
        let opened = map.matches(&format!("<{tag}")).count();
        assert_eq!(opened, map.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
    // Other tests' threads are on it, too.
    assert!(map.matches("class=\"up\"").count() >= 2, "{map}");
    assert!(map.contains("4. Rust → C  snapshot::shop_price</text>"), "{map}");
}

#[test]
#[cfg(feature = "serde")]
fn a_snapshot_can_be_serialised() {
    let snapshot = shop_total(snapshot);
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["process"], std::process::id());
    let threads = json["threads"].as_array().unwrap();
    let thread = threads.iter().find(|thread| thread["current"] == true).unwrap();
    assert_eq!(thread["calls"][0]["direction"], "Upcall");
    assert!(thread["stacks"].as_array().unwrap().iter().any(|stack| stack["kind"] == "Pooled"));
    assert!(json["pool"]["in_use"].as_u64().unwrap() > 0);
}
