//! Every path of a crossing cleans up.
//!
//! Captured values, results and payloads are dropped exactly once. Afterwards, no call is open and
//! no stack is in use.

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicIsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use common::{AtDrop, FIBERS};
use memory::Memory;
use upcall::report::{StackKind, Thread};
use upcall::{StackChoice, downcall, downcall_on_fiber, enter, entry, snapshot, wait};

/// The number of drops of each item of a case.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<(&'static str, u32)>>>);

struct Item(Ledger, usize);

impl Drop for Item {
    fn drop(&mut self) {
        self.0.0.lock().unwrap()[self.1].1 += 1;
    }
}

impl Ledger {
    fn item(&self, what: &'static str) -> Item {
        let mut items = self.0.lock().unwrap();
        items.push((what, 0));
        Item(self.clone(), items.len() - 1)
    }

    fn raise(&self, what: &'static str) -> ! {
        resume_unwind(Box::new(self.item(what)))
    }

    /// The name of a payload raised by `raise`.
    fn name(&self, payload: Box<dyn std::any::Any + Send>) -> &'static str {
        let item = payload.downcast::<Item>().expect("an item");
        let items = self.0.lock().unwrap();
        items[item.1].0
    }
}

/// A result type of crossings: small, large, aligned or empty.
trait Shape {
    fn of(item: Item) -> Self;
    fn is_whole(&self) -> bool;
}

struct Small(#[expect(dead_code, reason = "to be dropped")] Item);

impl Shape for Small {
    fn of(item: Item) -> Self {
        Self(item)
    }

    fn is_whole(&self) -> bool {
        true
    }
}

struct Large(#[expect(dead_code, reason = "to be dropped")] Item, [u8; 5000]);

impl Shape for Large {
    fn of(item: Item) -> Self {
        Self(item, [7; 5000])
    }

    fn is_whole(&self) -> bool {
        self.1.iter().all(|&byte| byte == 7)
    }
}

#[repr(align(512))]
struct Aligned(#[expect(dead_code, reason = "to be dropped")] Item);

impl Shape for Aligned {
    fn of(item: Item) -> Self {
        Self(item)
    }

    fn is_whole(&self) -> bool {
        std::ptr::from_ref(std::hint::black_box(self)) as usize % 512 == 0
    }
}

/// A result of zero size. Only one test uses it, because its live values are counted in a static.
struct Nothing;

static NOTHINGS: AtomicIsize = AtomicIsize::new(0);

impl Drop for Nothing {
    fn drop(&mut self) {
        NOTHINGS.fetch_sub(1, Relaxed);
    }
}

impl Shape for Nothing {
    fn of(_: Item) -> Self {
        NOTHINGS.fetch_add(1, Relaxed);
        Self
    }

    fn is_whole(&self) -> bool {
        NOTHINGS.load(Relaxed) > 0
    }
}

/// The stack of the C code.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Own,
    NewThread,
    Undescribed,
    Registered,
    Fiber,
}

const PLACES: [Place; 5] =
    [Place::Own, Place::NewThread, Place::Undescribed, Place::Registered, Place::Fiber];
const CHOICES: [StackChoice; 3] = [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled];

/// The calling thread's numbers of open calls and of pooled stacks in use.
fn in_use() -> (usize, usize) {
    let threads = snapshot().threads;
    let stacks =
        |thread: &Thread| thread.stacks.iter().filter(|stack| stack.kind == StackKind::Pooled).count();
    threads.iter().find(|thread| thread.current).map_or((0, 0), |thread| (thread.calls.len(), stacks(thread)))
}

/// Runs `f`, and asserts that its calls and stacks are no longer in use.
fn undone(f: impl FnOnce()) {
    let before = in_use();
    f();
    assert_eq!(in_use(), before, "open calls, and stacks");
}

impl Place {
    /// Runs `f` here, twice: the first upcall teaches the thread a range for the second.
    fn run(self, f: impl Fn() + Send + 'static) {
        let f = move || {
            undone(&f);
            undone(&f);
        };
        let mut memory = Memory::new(512 << 10);
        match self {
            Place::Own => f(),
            Place::NewThread => {
                std::thread::spawn(f).join().unwrap_or_else(|payload| resume_unwind(payload));
            }
            Place::Undescribed => corosensei::on_stack(&mut memory, f),
            Place::Registered => {
                let (low, size) = memory.range();
                // SAFETY: the memory is a stack, and outlives the registration.
                let _registered = unsafe { stackbounds::register(low, size) }.unwrap();
                corosensei::on_stack(&mut memory, f);
            }
            Place::Fiber => wait(FIBERS.fiber(f)),
        }
    }

    /// Whether the bounds are estimated: here, or with `in_downcall`, on the stack of its
    /// downcalls.
    ///
    /// A fiber's downcalls run on the thread's own stack.
    fn is_estimated(self, in_downcall: bool) -> bool {
        self == Place::Undescribed || cfg!(stackbounds_no_query) && (self != Place::Fiber || in_downcall)
    }
}

fn check(case: &str, run: impl FnOnce(&Ledger)) {
    let ledger = Ledger::default();
    let said = AtDrop(|| _ = std::thread::panicking().then(|| eprintln!("{case}")));
    run(&ledger);
    for (what, drops) in &*ledger.0.lock().unwrap() {
        assert_eq!(*drops, 1, "{what}");
    }
    assert!(!ledger.0.lock().unwrap().is_empty());
    drop(said);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Becomes {
    Value,
    Panic,
    Refused,
}

fn upcall<S: Shape>(ledger: &Ledger, place: Place, choice: StackChoice, becomes: Becomes, enclosed: bool) {
    let captured = ledger.item("captured");
    let entry = entry().stack(choice);
    let entry = if becomes == Becomes::Refused { entry.min_stack(usize::MAX) } else { entry };
    let (open, _) = in_use();
    let answer = entry.enter(|| {
        let _captured = captured;
        assert_eq!(in_use().0, open + 1);
        if becomes == Becomes::Panic {
            ledger.raise("payload");
        }
        S::of(ledger.item("result"))
    });
    match answer {
        Ok(value) => {
            let served = choice == StackChoice::Caller && place.is_estimated(enclosed);
            assert!(value.is_whole() && (becomes == Becomes::Value || served));
        }
        Err(error) => {
            assert_eq!(error.refusal().is_some(), becomes == Becomes::Refused);
            if choice == StackChoice::Auto {
                return; // the error is dropped with its payload
            }
            assert_eq!(error.goes_on(), becomes == Becomes::Panic && enclosed);
            let payload = error.into_payload().map(|payload| ledger.name(payload));
            assert_eq!(payload, (becomes == Becomes::Panic).then_some("payload"));
        }
    }
}

fn upcalls<S: Shape>() {
    for place in PLACES {
        for choice in CHOICES {
            for becomes in [Becomes::Value, Becomes::Panic, Becomes::Refused] {
                for enclosed in [false, true] {
                    check(&format!("{place:?} {choice:?} {becomes:?}, enclosed: {enclosed}"), |ledger| {
                        let ledger = ledger.clone();
                        place.run(move || {
                            let call = || upcall::<S>(&ledger, place, choice, becomes, enclosed);
                            if !enclosed {
                                return call();
                            }
                            let raised = catch_unwind(AssertUnwindSafe(|| downcall(call)));
                            let name = raised.err().map(|payload| ledger.name(payload));
                            // With the other choices, the payload has been taken out of the error.
                            let goes_on = becomes == Becomes::Panic && choice == StackChoice::Auto;
                            assert_eq!(name, goes_on.then_some("payload"));
                        });
                    });
                }
            }
        }
    }
}

/// The actions of a downcall's C code.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Returns,
    Panics,
    /// Makes an upcall, and the upcall panics.
    Leaves,
    LeavesAndPanics,
    LeavesTwo,
    /// Makes such an upcall while the thread panics.
    LeavesInDrop,
}

const DOES: [Does; 6] =
    [Does::Returns, Does::Panics, Does::Leaves, Does::LeavesAndPanics, Does::LeavesTwo, Does::LeavesInDrop];

fn downcalls<S: Shape + 'static>() {
    type Downcall<S> = fn(&mut dyn FnMut() -> S) -> S;
    let kinds: [Downcall<S>; 2] = [|f| downcall(f), |f| downcall_on_fiber(f)];
    for place in PLACES {
        for inside in [None, Some(StackChoice::Auto), Some(StackChoice::Caller), Some(StackChoice::Pooled)] {
            for (on_fiber, make) in kinds.into_iter().enumerate() {
                for does in DOES {
                    check(
                        &format!("{place:?}, in an upcall {inside:?}, on fiber {on_fiber}, {does:?}"),
                        |ledger| {
                            let ledger = ledger.clone();
                            place.run(move || {
                                let call = || undone(|| downcall_that::<S>(&ledger, make, does));
                                match inside {
                                    None => call(),
                                    Some(choice) => entry().stack(choice).enter(call).unwrap(),
                                }
                            });
                        },
                    );
                }
            }
        }
    }
}

fn downcall_that<S: Shape>(ledger: &Ledger, make: fn(&mut dyn FnMut() -> S) -> S, does: Does) {
    let call = || {
        make(&mut || {
            let leaves: &[&str] = match does {
                Does::Returns | Does::Panics => &[],
                Does::LeavesTwo => &["left", "left later"],
                _ => &["left"],
            };
            for what in leaves {
                let error = enter(|| ledger.raise(what)).unwrap_err();
                assert!(error.goes_on());
            }
            if matches!(does, Does::Panics | Does::LeavesAndPanics) {
                ledger.raise("own");
            }
            S::of(ledger.item("result"))
        })
    };
    let raised = catch_unwind(AssertUnwindSafe(|| {
        if does == Does::LeavesInDrop {
            let _calls = AtDrop(|| assert!(call().is_whole()));
            ledger.raise("first");
        }
        assert!(call().is_whole());
    }));
    let expected = match does {
        Does::Returns => None,
        Does::Panics | Does::LeavesAndPanics => Some("own"),
        Does::Leaves | Does::LeavesTwo => Some("left"),
        Does::LeavesInDrop => Some("first"),
    };
    assert_eq!(raised.err().map(|payload| ledger.name(payload)), expected);
}

#[test]
fn small_results() {
    upcalls::<Small>();
    downcalls::<Small>();
}

#[test]
fn large_results() {
    upcalls::<Large>();
    downcalls::<Large>();
}

#[test]
fn aligned_results() {
    upcalls::<Aligned>();
    downcalls::<Aligned>();
}

#[test]
fn results_without_bytes() {
    upcalls::<Nothing>();
    downcalls::<Nothing>();
    assert_eq!(NOTHINGS.load(Relaxed), 0);
}
