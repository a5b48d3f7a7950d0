//! Fibers dropped before they end, and the fiber-local variables dropped with them.

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::FIBERS;
use common::{AtDrop, Comparator, Log, child, message, part, poll, time_limit};
use futures_lite::future::yield_now;
use upcall::{Fiber, FiberLocal, downcall, downcall_on_fiber, enter, sleep, wait, with_stack};

fn for_ever() {
    wait(std::future::pending::<()>());
}

/// A fiber suspended in the first wait of `f`.
fn begun<T>(f: impl FnOnce() -> T + 'static) -> Pin<Box<Fiber<T>>> {
    let mut fiber = Box::pin(FIBERS.fiber(f));
    assert!(poll(&mut fiber).is_pending());
    fiber
}

#[test]
fn before_its_first_poll() {
    let log = Log::default();
    let (said, inner) = (log.at_drop("closure"), log.clone());
    drop(FIBERS.fiber(move || {
        inner.add("ran");
        drop(said);
    }));
    assert_eq!(log.take(), ["closure"]);
}

#[test]
fn where_it_waits() {
    let log = Log::default();
    let inner = log.clone();
    let fiber = begun(move || {
        let _first = inner.at_drop("first");
        let _second = inner.at_drop("second");
        for_ever();
        inner.add("went on");
    });
    drop(fiber);
    assert_eq!(log.take(), ["second", "first"]);
}

#[test]
fn on_several_stacks() {
    let log = Log::default();
    let inner = log.clone();
    let fiber = begun(move || {
        let _outermost = inner.at_drop("outermost");
        with_stack(1 << 20, || {
            let _middle = inner.at_drop("middle");
            with_stack(4 << 20, || {
                let _innermost = inner.at_drop("innermost");
                with_stack(16 << 20, for_ever);
            });
        });
    });
    drop(fiber);
    assert_eq!(log.take(), ["innermost", "middle", "outermost"]);
}

#[test]
fn code_that_catches_the_end_and_waits_again_is_unwound_again() {
    let log = Log::default();
    let inner = log.clone();
    let fiber = begun(move || {
        for _ in 0..3 {
            assert!(catch_unwind(for_ever).is_err());
            inner.add("caught");
        }
        inner.at_drop("value")
    });
    drop(fiber);
    assert_eq!(log.take(), ["caught", "caught", "caught", "value"]);
}

#[test]
fn a_panic_meanwhile_stays_in_there() {
    let log = Log::default();
    let said = log.at_drop("unwound");
    let fiber = begun(move || {
        let _said = said;
        assert!(catch_unwind(for_ever).is_err());
        panic!("on its way out");
    });
    drop(fiber);
    assert_eq!(log.take(), ["unwound"]);
}

#[test]
fn a_destructor_that_waits_blocks() {
    const NAP: Duration = Duration::from_millis(20);
    let _limit = time_limit("a_destructor_that_waits_blocks");
    let log = Log::default();
    let inner = log.clone();
    let fiber = begun(move || {
        let _waits = AtDrop(move || {
            sleep(NAP);
            inner.add("waited");
        });
        for_ever();
    });
    let start = Instant::now();
    drop(fiber);
    assert!(start.elapsed() >= NAP);
    assert_eq!(log.take(), ["waited"]);
}

#[test]
fn a_destructor_that_panics_stops_the_process_as_anywhere_in_rust() {
    const NAME: &str = "a_destructor_that_panics_stops_the_process_as_anywhere_in_rust";
    if part().is_some() {
        drop(begun(|| {
            let _panics = AtDrop(|| panic!("in a destructor"));
            for_ever();
        }));
        return;
    }
    let output = child(NAME, "panic", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("panic in a destructor during cleanup"), "{said}");
}

#[test]
fn a_destructor_that_panics_and_catches_it_harms_nothing() {
    let log = Log::default();
    let inner = log.clone();
    drop(begun(move || {
        let _outer = inner.at_drop("outer");
        let _panics = AtDrop(|| assert!(catch_unwind(|| panic!("in a destructor")).is_err()));
        for_ever();
    }));
    assert_eq!(log.take(), ["outer"]);
}

#[test]
fn while_the_thread_panics() {
    let _limit = time_limit("while_the_thread_panics");
    let log = Log::default();
    let inner = log.clone();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _fiber = begun(move || {
            let _said = inner.at_drop("unwound");
            let _waits = AtDrop(|| sleep(Duration::from_millis(1)));
            for_ever();
        });
        panic!("with a fiber");
    }));
    assert_eq!(message(panicked.unwrap_err()), "with a fiber");
    assert_eq!(log.take(), ["unwound"]);
}

#[test]
fn fibers_that_wait_for_fibers_are_dropped_with_them() {
    let log = Log::default();
    let inner = log.clone();
    drop(begun(move || {
        let _outer = inner.at_drop("outer");
        wait(FIBERS.fiber(move || {
            let _middle = inner.at_drop("middle");
            wait(FIBERS.fiber(move || {
                let _inner = inner.at_drop("inner");
                for_ever();
            }));
        }));
    }));
    assert_eq!(log.take(), ["inner", "middle", "outer"]);
}

/// Sorts in C on the fiber's own stack. The comparator's third call waits for ever.
///
/// After the fiber is dropped, C makes further upcalls, all refused, and returns.
fn sort_until_dropped(log: &Log, innermost: &dyn Fn()) {
    let _outside = log.at_drop("outside");
    let calls = Cell::new(0);
    let compare = |a: i32, b: i32| {
        calls.set(calls.get() + 1);
        if calls.get() == 3 {
            let _said = log.at_drop("in the comparator");
            innermost();
        }
        a.cmp(&b)
    };
    let comparator = Comparator::new(&compare);
    let returned = Cell::new(false);
    let raised = catch_unwind(AssertUnwindSafe(|| {
        let mut numbers = [5, 3, 9, 1, 7, 2, 8];
        downcall_on_fiber(|| {
            comparator.sort(&mut numbers);
            numbers.sort();
            assert_eq!(numbers, [1, 2, 3, 5, 7, 8, 9], "C lost nothing");
            returned.set(true);
        });
    }));
    assert!(returned.get());
    assert_eq!(comparator.panics.get(), 1);
    assert!(comparator.refusals.get() > 3, "{} refused", comparator.refusals.get());
    assert_eq!(calls.get(), 3, "nothing but the answer declared, from the drop on");
    std::panic::resume_unwind(raised.unwrap_err());
}

#[test]
fn with_c_frames_in_the_middle() {
    let log = Log::default();
    let inner = log.clone();
    drop(begun(move || {
        sort_until_dropped(&inner, &for_ever);
        inner.add("went on");
    }));
    assert_eq!(log.take(), ["in the comparator", "outside"]);
}

#[test]
fn with_c_frames_above_c_frames() {
    let log = Log::default();
    let inner = log.clone();
    drop(begun(move || {
        sort_until_dropped(&inner, &|| with_stack(1 << 20, || sort_until_dropped(&inner, &for_ever)));
        inner.add("went on");
    }));
    assert_eq!(log.take(), ["in the comparator", "outside", "in the comparator", "outside"]);
}

#[test]
fn upcalls_are_served_again_when_c_has_returned() {
    let log = Log::default();
    let inner = log.clone();
    drop(begun(move || {
        let _later = AtDrop(|| {
            let mut numbers = [3, 1, 2];
            downcall_on_fiber(|| Comparator::new(&|a, b| a.cmp(&b)).sort(&mut numbers));
            assert_eq!(numbers, [1, 2, 3]);
            inner.add("sorted");
        });
        sort_until_dropped(&inner, &for_ever);
    }));
    assert_eq!(log.take(), ["in the comparator", "outside", "sorted"]);
}

#[test]
fn every_nesting_of_crossings() {
    type Crossing = fn(&dyn Fn());
    let crossings: [Crossing; 4] = [
        |f| drop(enter(f)),
        |f| downcall_on_fiber(f),
        |f| with_stack(1 << 20, f),
        |f| downcall_on_fiber(|| drop(enter(f))),
    ];
    fn nest(log: &Log, crossings: &[Crossing]) {
        let _said = log.at_drop("left");
        match crossings {
            [] => for_ever(),
            [first, rest @ ..] => first(&|| nest(log, rest)),
        }
    }
    for code in 0..4usize.pow(5) {
        let chosen: Vec<Crossing> = (0..5).map(|digit| crossings[code / 4usize.pow(digit) % 4]).collect();
        let log = Log::default();
        let inner = log.clone();
        drop(begun(move || nest(&inner, &chosen)));
        assert_eq!(log.take(), ["left"; 6], "nesting {code}");
    }
    // Other fibers and upcalls still work.
    wait(FIBERS.fiber(|| enter(|| wait(yield_now())).unwrap()));
}

#[test]
fn a_downcall_to_the_system_stack_blocks_in_there() {
    let _limit = time_limit("a_downcall_to_the_system_stack_blocks_in_there");
    let compare = |a: i32, b: i32| {
        sleep(Duration::from_millis(1));
        a.cmp(&b)
    };
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        let mut numbers = [2, 3, 1];
        downcall(|| Comparator::new(&compare).sort(&mut numbers));
        numbers
    }));
    assert!(matches!(poll(&mut fiber), std::task::Poll::Ready([1, 2, 3])));
}

static OWN: FiberLocal<Cell<u32>> = FiberLocal::new(|| Cell::new(1));

#[test]
fn a_variable_is_of_a_fiber_or_of_a_thread() {
    OWN.with(|own| own.set(100));
    let add = |n: u32| {
        move || {
            for _ in 0..5 {
                OWN.with(|own| own.set(own.get() + n));
                wait(yield_now());
            }
            with_stack(1 << 20, || downcall_on_fiber(|| enter(|| OWN.with(Cell::get)).unwrap()))
        }
    };
    let mut fibers: Vec<_> = (0..4).map(|n| begun(add(n))).collect();
    (0..4).for_each(|_| fibers.iter_mut().for_each(|fiber| assert!(poll(fiber).is_pending())));
    let values: Vec<_> = fibers.into_iter().map(wait).collect();
    assert_eq!(values, [1, 6, 11, 16]);
    assert_eq!(std::thread::spawn(|| OWN.with(Cell::get)).join().unwrap(), 1);
    assert_eq!(OWN.with(Cell::get), 100);
}

/// The events of `Says` in the next test.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records its creation and its drop in `SAID`.
struct Says(&'static str);

impl Says {
    fn new(name: &'static str) -> Self {
        SAID.lock().unwrap().push(format!("make {name}"));
        Self(name)
    }
}

impl Drop for Says {
    fn drop(&mut self) {
        SAID.lock().unwrap().push(format!("drop {}", self.0));
    }
}

static FIRST: FiberLocal<Says> = FiberLocal::new(|| Says::new("first"));
/// `SECOND`, with an initialiser that uses `FIRST`.
static SECOND: FiberLocal<Says> = FiberLocal::new(|| {
    FIRST.with(|first| assert_eq!(first.0, "first"));
    Says::new("second")
});
static THIRD: FiberLocal<Says> = FiberLocal::new(|| Says::new("third"));

fn use_variables() {
    SECOND.with(|second| assert_eq!(second.0, "second"));
    THIRD.with(|third| assert_eq!(third.0, "third"));
    FIRST.with(|first| assert_eq!(first.0, "first"));
}

#[test]
fn variables_are_dropped_in_the_order_in_which_they_were_made() {
    let expected = ["make first", "make second", "make third", "drop first", "drop second", "drop third"];
    let said = || std::mem::take(&mut *SAID.lock().unwrap());
    wait(FIBERS.fiber(use_variables));
    assert_eq!(said(), expected, "at the end of a fiber");
    drop(begun(|| {
        use_variables();
        for_ever();
    }));
    assert_eq!(said(), expected, "when a fiber is dropped");
    std::thread::spawn(use_variables).join().unwrap();
    assert_eq!(said(), expected, "at the exit of a thread");
}

#[test]
fn a_variables_destructor_uses_another_that_was_made_later() {
    static USED: FiberLocal<Cell<u32>> = FiberLocal::new(|| Cell::new(0));
    static USES: FiberLocal<AtDrop<fn()>> =
        FiberLocal::new(|| AtDrop(|| SEEN.store(USED.with(Cell::get), Relaxed)));
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let use_both = || {
        USES.with(|_| ());
        USED.with(|used| used.set(7));
    };
    wait(FIBERS.fiber(use_both));
    assert_eq!(SEEN.swap(0, Relaxed), 7, "in a fiber, what is dropped later is as it was");
    std::thread::spawn(use_both).join().unwrap();
    assert_eq!(SEEN.swap(0, Relaxed), 7, "on a thread too");
}

#[test]
fn a_variable_made_in_a_destructor_is_dropped_too() {
    static USES: FiberLocal<AtDrop<fn()>> = FiberLocal::new(|| AtDrop(|| LATE.with(|_| ())));
    static LATE: FiberLocal<AtDrop<fn()>> = FiberLocal::new(|| AtDrop(|| DROPPED.store(1, Relaxed)));
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    wait(FIBERS.fiber(|| USES.with(|_| ())));
    assert_eq!(DROPPED.swap(0, Relaxed), 1, "in a fiber");
    std::thread::spawn(|| USES.with(|_| ())).join().unwrap();
    assert_eq!(DROPPED.swap(0, Relaxed), 1, "on a thread");
}

#[test]
fn a_variables_destructor_that_panics_is_the_fibers_panic() {
    static PANICS: FiberLocal<AtDrop<fn()>> = FiberLocal::new(|| AtDrop(|| panic!("a variable's")));
    let mut fiber = Box::pin(FIBERS.fiber(|| PANICS.with(|_| ())));
    let payload = catch_unwind(AssertUnwindSafe(|| poll(&mut fiber))).unwrap_err();
    assert_eq!(message(payload), "a variable's");
    assert_eq!(format!("{fiber:?}"), "Fiber { state: \"finished\" }");
}

#[test]
fn so_is_one_that_was_made_in_a_destructor() {
    static USES: FiberLocal<AtDrop<fn()>> = FiberLocal::new(|| AtDrop(|| LATE.with(|_| ())));
    static LATE: FiberLocal<AtDrop<fn()>> = FiberLocal::new(|| AtDrop(|| panic!("a late variable's")));
    let mut fiber = Box::pin(FIBERS.fiber(|| USES.with(|_| ())));
    let payload = catch_unwind(AssertUnwindSafe(|| poll(&mut fiber))).unwrap_err();
    assert_eq!(message(payload), "a late variable's");
    assert_eq!(format!("{fiber:?}"), "Fiber { state: \"finished\" }");
}

#[test]
fn upcalls_are_served_again_when_the_code_that_called_c_has_panicked() {
    let log = Log::default();
    let inner = log.clone();
    drop(begun(move || {
        let raised = catch_unwind(AssertUnwindSafe(|| {
            downcall_on_fiber(|| {
                assert!(enter(for_ever).is_err());
                assert!(enter(|| ()).unwrap_err().refusal().is_some(), "C has not returned");
                panic!("after C");
            });
        }));
        assert_eq!(message(raised.unwrap_err()), "after C");
        downcall_on_fiber(|| enter(|| inner.add("served"))).unwrap();
    }));
    assert_eq!(log.take(), ["served"]);
}
