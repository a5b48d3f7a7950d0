//! Contents of a snapshot: as a tree, as a picture, and serialised.

#[path = "../examples/map/svg.rs"]
mod svg;

use std::sync::mpsc;

use upcall::report::{Direction, Stack, StackKind, Thread};
use upcall::{Snapshot, downcall, downcall_on_fiber, enter, entry, snapshot, wait};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

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
        assert!(stacks.iter().any(|stack| stack.kind == StackKind::Undescribed && stack.remaining.is_none()));
    } else {
        let own = &stacks[0];
        assert_eq!(own.kind, StackKind::Own);
        assert!(own.contains(here), "{snapshot}");
        let remaining = own.remaining.expect("the thread's own call is on it");
        assert!(remaining < own.high - own.low && own.low + remaining < here, "{snapshot}");
        if cfg!(target_os = "linux") {
            assert!(own.deepest.expect("pages are in memory") >= own.high - here, "{snapshot}");
        }
    }
    let pooled: Vec<&Stack> = stacks.iter().filter(|stack| stack.kind == StackKind::Pooled).collect();
    assert_eq!(pooled.len(), 1, "{snapshot}");
    assert!(pooled[0].remaining.is_some_and(|remaining| remaining >= 128 << 10), "{snapshot}");
}

/// On the thread's own stack, if its bounds are known.
#[test]
#[cfg(all(target_os = "linux", not(stackbounds_no_query)))]
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
    let reader = FIBERS.builder().name("the <reader>").spawn(move || {
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
    let map = svg::map(&snapshot);
    assert!(map.contains("fiber \"the &lt;reader&gt;\""), "{map}");
    sender.send_blocking(7).unwrap();
    assert_eq!(reader.join().unwrap(), 7);
    assert!(!upcall::snapshot().to_string().contains("the <reader>"));
}

/// The open upcalls of functions whose names end with `name`, on all threads: number and kind of
/// stack.
fn upcalls_of(snapshot: &Snapshot, name: &str) -> Vec<(usize, StackKind)> {
    let calls = snapshot.threads.iter().flat_map(|thread| thread.calls.iter().enumerate());
    let named = calls.filter(|(_, call)| {
        call.direction == Direction::Upcall && call.function.is_some_and(|function| function.ends_with(name))
    });
    named.map(|(i, call)| (i + 1, call.stack)).collect()
}

fn shop_waits(receiver: &async_channel::Receiver<u8>) -> u8 {
    enter(|| wait(receiver.recv()).unwrap()).unwrap()
}

#[test]
fn suspended_upcalls_are_named_after_the_downcalls_that_enclose_them() {
    const FIBERS_THERE: usize = 5;
    let runtime = FIBERS.local_runtime().unwrap();
    let (sender, receiver) = async_channel::bounded::<u8>(FIBERS_THERE);
    let fibers: Vec<_> = (0..FIBERS_THERE)
        .map(|_| {
            let receiver = receiver.clone();
            runtime.spawn_local(move || downcall_on_fiber(|| shop_waits(&receiver)))
        })
        .collect();
    // Runs the fibers in an upcall. It has returned before the snapshot, so the snapshot lacks it.
    entry().stack(upcall::StackChoice::Caller).enter(|| runtime.run_ready(usize::MAX)).unwrap();
    let snapshot = snapshot();
    let calls = &current(&snapshot).calls;
    let upcalls = upcalls_of(&snapshot, "::shop_waits");
    assert_eq!(upcalls, [2, 4, 6, 8, 10].map(|number| (number, StackKind::Pooled)), "{snapshot}");
    assert_eq!(calls.len(), 2 * FIBERS_THERE, "only those\n{snapshot}");
    for (number, _) in upcalls {
        let (down, up) = (&calls[number - 2], &calls[number - 1]);
        let stack = current(&snapshot).stacks.iter().find(|stack| stack.contains(up.sp)).unwrap();
        assert!(stack.fiber.as_ref().unwrap().waits.is_some(), "{snapshot}");
        assert!(stack.contains(down.sp) && up.sp < down.sp, "{snapshot}");
    }
    let text = snapshot.to_string();
    assert!(text.contains("2. C → Rust, snapshot::shop_waits"), "{text}");
    assert_eq!(svg::map(&snapshot).matches("snapshot::shop_waits").count(), FIBERS_THERE);
    (0..FIBERS_THERE).for_each(|i| sender.try_send(i as u8).unwrap());
    let sum: u8 = fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum();
    assert_eq!(sum, 10);
    assert_eq!(upcalls_of(&upcall::snapshot(), "shop_waits"), []);
}

/// Each waiting fiber is in the middle of one upcall; the fiber running during the wait is in
/// another.
#[test]
fn upcalls_under_a_nested_wait_are_named() {
    #[allow(clippy::redundant_closure)] // gives the upcall this function's name
    fn shop_innermost() -> Snapshot {
        enter(|| snapshot()).unwrap()
    }
    fn shop_inner() -> Snapshot {
        enter(|| wait(FIBERS.fiber(shop_innermost))).unwrap()
    }
    fn shop_outer() -> Snapshot {
        enter(|| {
            wait(FIBERS.fiber(|| {
                upcall::yield_now();
                shop_inner()
            }))
        })
        .unwrap()
    }
    let snapshot = shop_outer();
    for (name, number) in [("shop_outer", 1), ("shop_inner", 2), ("shop_innermost", 3)] {
        let found = upcalls_of(&snapshot, &format!("::{name}"));
        assert_eq!(
            found.iter().map(|&(number, _)| number).collect::<Vec<_>>(),
            [number],
            "{name}\n{snapshot}"
        );
    }
    assert_eq!(current(&upcall::snapshot()).calls, []);
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

/// Names appear and disappear while other threads read them.
#[test]
fn fibers_begin_and_end_meanwhile() {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = FIBERS.local_runtime().unwrap();
                    for i in 0..3000 {
                        let name = format!("fiber {i} with a name that is on the heap");
                        let fiber = FIBERS.builder().name(name).build(upcall::yield_now).unwrap();
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
    let map = shop_total(|| shop_price(|| svg::map(&snapshot())));
    for tag in ["svg", "style", "text", "defs", "marker"] {
        let opened = map.matches(&format!("<{tag}")).count();
        assert_eq!(opened, map.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
    // Threads of other tests are in the picture, too.
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
