//! The crossing as seen by Rust code; `hosts/` has C's view.

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;

use stackbounds::{current, remaining, stack_pointer};
use upcall::report::{Direction, StackKind};
use upcall::{Refusal, StackChoice, downcall, enter, entry, snapshot, with_stack};

const QUERIED: bool = !cfg!(stackbounds_no_query);

/// Counts its drops, and so shows a closure's end.
struct CountsDrops<'a>(&'a Cell<u32>);

impl Drop for CountsDrops<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_value_comes_back_from_every_choice_of_stack() {
    let not_sent = Rc::new(String::from("borrowed"));
    for choice in [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled] {
        let length = entry().stack(choice).enter(|| not_sent.len()).unwrap();
        assert_eq!(length, 8);
    }
    assert!(entry().min_stack(3 << 20).enter(|| remaining().unwrap() >= 3 << 20).unwrap());
}

#[test]
fn a_closure_is_run_or_dropped_once_wherever_it_ends() {
    let drops = Cell::new(0);
    let counts = CountsDrops(&drops);
    enter(move || drop(counts)).unwrap();
    assert_eq!(drops.get(), 1);
    let counts = CountsDrops(&drops);
    let refused = entry().min_stack(usize::MAX).enter(move || drop(counts)).unwrap_err();
    assert_eq!(refused.refusal(), Some(&Refusal::OutOfMemory { bytes: usize::MAX }));
    assert_eq!(drops.get(), 2);
    let counts = CountsDrops(&drops);
    let panicked = entry().stack(StackChoice::Pooled).enter(move || {
        let _counts = counts;
        panic!("in the middle");
    });
    assert_eq!(panicked.unwrap_err().message(), "in the middle");
    assert_eq!(drops.get(), 3);
}

#[test]
fn an_error_has_the_message_and_the_payload() {
    let error = enter(|| panic_any(42u8)).unwrap_err();
    assert_eq!(error.to_string(), "a panic whose payload is not a string");
    assert_eq!(*error.into_payload().unwrap().downcast::<u8>().unwrap(), 42);
    let error = enter(|| panic!("formatted {}", 1)).unwrap_err();
    assert_eq!(format!("{error:?}"), "Panicked(\"formatted 1\")");
}

#[test]
fn an_enclosing_downcall_gets_the_payload_of_an_error_that_is_dropped() {
    let raised = catch_unwind(|| {
        downcall(|| {
            drop(enter(|| panic_any(7u16)).unwrap_err());
            "C goes on until it returns"
        })
    });
    assert_eq!(*raised.unwrap_err().downcast::<u16>().unwrap(), 7);
}

#[test]
fn the_value_of_a_downcall_is_dropped_when_a_panic_takes_its_place() {
    let drops = Cell::new(0);
    let replaced = || {
        downcall(|| {
            let _ = enter(|| panic!("inner"));
            CountsDrops(&drops)
        })
    };
    // On a thread without earlier upcalls, on an attached thread's own stack, and on a pooled
    // stack.
    assert!(catch_unwind(AssertUnwindSafe(|| drop(replaced()))).is_err());
    assert!(enter(|| drop(replaced())).is_err());
    assert!(entry().stack(StackChoice::Pooled).enter(|| drop(replaced())).is_err());
    assert_eq!(drops.get(), 3);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb");
    }
}

#[test]
fn drops_that_panic_in_the_wrong_moment_harm_nobody() {
    // The value replaced by a panic, on the thread's own stack and on a pooled stack.
    let replaced = || {
        downcall(|| {
            let _ = enter(|| panic!("inner"));
            Bomb
        })
    };
    let raised = enter(|| std::mem::forget(replaced())).unwrap_err();
    assert_eq!(raised.message(), "inner");
    let raised = entry().stack(StackChoice::Pooled).enter(|| std::mem::forget(replaced())).unwrap_err();
    assert_eq!(raised.message(), "inner");
    // The closure of a refused upcall.
    let bomb = Bomb;
    let refused = entry().min_stack(usize::MAX).enter(move || std::mem::forget(bomb)).unwrap_err();
    assert!(refused.refusal().is_some());
    // A panic's payload.
    drop(enter(|| panic_any(Bomb)).unwrap_err());
}

#[test]
fn errors_go_wherever_errors_go() {
    fn fails() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(enter(|| panic!("sent"))?)
    }
    assert_eq!(fails().unwrap_err().to_string(), "sent");
}

#[test]
fn what_c_raises_itself_comes_first() {
    let raised = catch_unwind(|| {
        downcall(|| {
            let _ = enter(|| panic!("inner"));
            panic!("outer");
        })
    });
    assert_eq!(*raised.unwrap_err().downcast::<&str>().unwrap(), "outer");
}

#[test]
fn a_downcall_from_a_pooled_stack_is_on_the_callers_stack_below_its_frames() {
    let outside = stack_pointer();
    let own = current();
    let pooled = entry().stack(StackChoice::Pooled);
    pooled
        .enter(|| {
            assert_ne!(current(), own);
            let inside = downcall(stack_pointer);
            assert!(inside < outside && outside - inside < 64 << 10);
            // A pooled stack in between makes no difference.
            let inside = with_stack(4 << 20, || downcall(stack_pointer));
            assert!(inside < outside && outside - inside < 64 << 10);
        })
        .unwrap();
}

#[test]
fn with_stack_recurses_as_deep_as_memory_goes() {
    fn depth(level: usize) -> usize {
        let frame = std::hint::black_box([level; 64]);
        if level == 0 {
            0
        } else {
            with_stack(32 << 10, || depth(level - 1)) + usize::from(frame[0] == level)
        }
    }
    let levels = 200_000;
    std::thread::Builder::new()
        .stack_size(64 << 10)
        .spawn(move || assert_eq!(depth(levels), levels))
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn with_stack_says_how_much_was_wanted_when_there_is_not_so_much() {
    let dropped = Cell::new(0);
    let counts = CountsDrops(&dropped);
    let raised = catch_unwind(AssertUnwindSafe(|| with_stack(usize::MAX / 2, move || drop(counts))));
    let message = raised.unwrap_err().downcast::<String>().unwrap();
    let wanted = format!("with_stack: there is no memory for a stack of {} bytes", usize::MAX / 2);
    assert!(message.starts_with(&wanted), "{message}");
    assert_eq!(dropped.get(), 1);
}

#[test]
fn panics_pass_through_with_stack_as_they_are() {
    let raised = catch_unwind(|| with_stack(8 << 20, || panic_any(3u32)));
    assert_eq!(*raised.unwrap_err().downcast::<u32>().unwrap(), 3);
}

#[test]
fn a_snapshot_in_the_middle_shows_calls_in_order_and_after_them_none() {
    let seen = entry()
        .stack(StackChoice::Pooled)
        .enter(|| downcall(|| enter(|| downcall(snapshot))))
        .unwrap()
        .unwrap();
    let thread = seen.threads.iter().find(|thread| thread.current).unwrap();
    let directions: Vec<_> = thread.calls.iter().map(|call| call.direction).collect();
    use Direction::{Downcall, Upcall};
    assert_eq!(directions, [Upcall, Downcall, Upcall, Downcall]);
    let on = if QUERIED { StackKind::Own } else { StackKind::Undescribed };
    assert!(thread.calls.iter().all(|call| call.stack == on), "{seen}");
    assert!(thread.calls.windows(2).all(|pair| pair[0].sp >= pair[1].sp), "{seen}");
    assert!(seen.to_string().contains("Rust → C, from "), "{seen}");
    let after = snapshot();
    assert!(after.threads.iter().find(|thread| thread.current).unwrap().calls.is_empty(), "{after}");
}

#[test]
fn a_snapshot_of_busy_threads_is_whole() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let busy = || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            enter(|| downcall(|| enter(|| downcall(|| ())))).unwrap().unwrap();
            // Stacks of the pool move to other threads.
            let pooled = || entry().stack(StackChoice::Pooled).enter(|| downcall(|| ()));
            std::thread::spawn(pooled).join().unwrap().unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(busy);
        scope.spawn(busy);
        for _ in 0..300 {
            let text = snapshot().to_string();
            assert!(text.starts_with("upcall "));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// C with more arguments than registers: compilers push the rest, so SP has moved when C is called.
#[test]
fn a_panic_crosses_c_functions_with_many_arguments() {
    type Many =
        extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize, usize) -> usize;
    extern "C" fn many(
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
        f: usize,
        g: usize,
        h: usize,
        i: usize,
        j: usize,
        k: usize,
    ) -> usize {
        enter(|| if k == 0 { panic!("eleven") } else { a + b + c + d + e + f + g + h + i + j + k })
            .unwrap_or(0)
    }
    let many: Many = black_box(many);
    for choice in [StackChoice::Auto, StackChoice::Pooled] {
        let sum = |last: usize| downcall(|| many(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, last));
        let caught = entry().stack(choice).enter(|| (sum(11), catch_unwind(|| sum(black_box(0)))));
        let (sum, caught) = caught.unwrap();
        assert_eq!((sum, *caught.unwrap_err().downcast::<&str>().unwrap()), (66, "eleven"));
    }
}
