//! Values kept by C by opaque pointers, and misuse of them.

mod common;

use std::collections::HashSet;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier};

use common::{AtDrop, Counted, child, part, stderr_of_success};
use upcall::{Handle, HandleError};

/// A pointer to send to another thread.
#[derive(Clone, Copy)]
struct Sent(*mut c_void);

// SAFETY: a handle is a number and may be used by any thread.
unsafe impl Send for Sent {}
// SAFETY: a handle is a number and may be used by any thread.
unsafe impl Sync for Sent {}

impl Sent {
    fn of<T>(raw: *mut T) -> Self {
        Self(raw.cast())
    }

    fn get<T>(self) -> *mut T {
        self.0.cast()
    }
}

#[test]
fn a_value_is_used_and_comes_back() {
    let raw = Handle::into_raw(String::from("kept"));
    assert_eq!(Handle::with(raw, String::len), Ok(4));
    Handle::with_mut(raw, |text| text.push('!')).unwrap();
    assert_eq!(Handle::from_raw(raw).unwrap(), "kept!");
    assert_eq!(Handle::from_raw(raw), Err(HandleError::Freed));
    assert_eq!(Handle::remove(raw), Err(HandleError::Freed));
    assert_eq!(Handle::with(raw, String::len), Err(HandleError::Freed));
    assert_eq!(Handle::with_mut(raw, |text| text.len()), Err(HandleError::Freed));
}

#[test]
fn what_is_no_handle_is_an_error() {
    const NAME: &str = "what_is_no_handle_is_an_error";
    // In a process of its own: other tests have been given some of these numbers, and on 32 bits an
    // address looks like one.
    if part().is_none() {
        stderr_of_success(&child(NAME, "run", &[]));
        return;
    }
    let raw = Handle::into_raw(7u32);
    let on_heap = Box::new(7u32);
    let local = 7u32;
    const PART: u32 = if usize::BITS == 64 { 24 } else { 15 };
    let values = [
        1,
        8,
        usize::MAX,
        usize::MAX / 2,
        ptr::from_ref(&*on_heap).addr(),
        ptr::from_ref(&local).addr(),
        (what_is_no_handle_is_an_error as fn()) as usize,
        raw.addr() ^ 1 << (usize::BITS - 1),
        raw.addr() & ((1 << (2 * PART)) - 1),
        // Other places of the table, and numbers not yet given out.
        raw.addr() ^ 1 << (2 * PART - 8),
        raw.addr() ^ 1 << (2 * PART - 1),
        raw.addr() ^ 1 << (PART - 1),
    ];
    for value in values {
        let error = Handle::with(ptr::without_provenance_mut(value), |_: &u32| ()).unwrap_err();
        assert_eq!(error, HandleError::Foreign { value });
        assert!(error.to_string().starts_with(&format!("{value:#x} is no handle")), "{error}");
    }
    assert_eq!(Handle::<u32>::from_raw(ptr::null_mut()), Err(HandleError::Null));
    assert_eq!(Handle::from_raw(raw), Ok(7u32));
}

#[test]
fn random_bits_are_never_a_handle() {
    let raw = [1, 2, 3].map(|number: u64| Handle::into_raw(number));
    let mut random = common::Random::new();
    for _ in 0..1_000_000 {
        let bits = random.below(usize::MAX);
        for value in [bits, raw[0].addr() ^ bits, raw[0].addr() ^ bits >> 16 & !0xff] {
            let value = ptr::without_provenance_mut(value);
            if !raw.contains(&value) {
                assert!(Handle::with(value, |_: &u64| ()).is_err());
            }
        }
    }
    assert_eq!(raw.map(|raw| Handle::from_raw(raw).unwrap()), [1, 2, 3]);
}

#[test]
fn a_value_of_another_type_is_named() {
    let raw = Handle::into_raw(vec![1u8]);
    let other = raw.cast::<String>();
    let error = Handle::from_raw(other).unwrap_err();
    assert!(
        error.to_string().contains("alloc::vec::Vec<u8>") && error.to_string().contains("String"),
        "{error}"
    );
    assert_eq!(Handle::remove(other), Err(error));
    assert_eq!(Handle::with(other, |_| ()), Err(error));
    assert_eq!(Handle::from_raw(raw), Ok(vec![1u8]));
}

#[test]
fn numbers_are_never_used_again() {
    // On 32 bits, there are at most 32,704 handles at a time.
    const ROUNDS: usize = if usize::BITS == 64 { 100_000 } else { 50_000 };
    let mut seen = HashSet::new();
    let mut live = Vec::new();
    for round in 0..ROUNDS {
        let raw = Handle::into_raw(round);
        assert!(seen.insert(raw), "{raw:p} came twice");
        live.push((raw, round));
        if round % 3 != 0 {
            let (raw, number) = live.swap_remove(round % live.len());
            assert_eq!(Handle::from_raw(raw), Ok(number));
        }
    }
    // Many more than a chunk of the table holds; each handle still has its own value.
    for (raw, number) in live {
        assert_eq!(Handle::from_raw(raw), Ok(number));
    }
}

#[test]
fn a_value_is_shared_or_used_alone() {
    let raw = Handle::into_raw(1);
    let nested = Handle::with(raw, |_| {
        assert_eq!(Handle::with_mut(raw, |_| ()), Err(HandleError::InUse));
        assert_eq!(Handle::from_raw(raw), Err(HandleError::InUse));
        Handle::with(raw, |&number| number)
    });
    assert_eq!(nested, Ok(Ok(1)));
    Handle::with_mut(raw, |_| {
        assert_eq!(Handle::with(raw, |_| ()), Err(HandleError::InUse));
        assert_eq!(Handle::with_mut(raw, |_| ()), Err(HandleError::InUse));
        assert_eq!(Handle::from_raw(raw), Err(HandleError::InUse));
    })
    .unwrap();
    assert_eq!(Handle::from_raw(raw), Ok(1));
}

#[test]
fn a_value_removed_in_use_lives_until_then() {
    let drops = Arc::new(AtomicUsize::new(0));
    let raw = Handle::into_raw(Counted(drops.clone()));
    Handle::with(raw, |_| {
        Handle::with(raw, |inner| {
            assert_eq!(Handle::remove(raw), Ok(()));
            assert_eq!(Handle::remove(raw), Err(HandleError::Freed));
            assert_eq!(inner.0.load(SeqCst), 0);
        })
        .unwrap();
        assert_eq!(drops.load(SeqCst), 0);
    })
    .unwrap();
    assert_eq!(drops.load(SeqCst), 1);
    let raw = Handle::into_raw(Counted(drops.clone()));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        Handle::with_mut(raw, |_| {
            assert_eq!(Handle::remove(raw), Ok(()));
            panic!("in the middle");
        })
    }));
    assert_eq!(common::message(panicked.unwrap_err()), "in the middle");
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn a_value_is_not_in_use_after_a_panic() {
    let raw = Handle::into_raw(1);
    let panics = || Handle::with_mut(raw, |_| panic!("in the middle"));
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    assert_eq!(Handle::from_raw(raw), Ok(1));
}

#[test]
fn destructors_that_panic_harm_nobody() {
    let raw = Handle::into_raw(AtDrop(bomb as fn()));
    assert_eq!(common::message(catch_unwind(|| Handle::remove(raw)).unwrap_err()), "a bomb");
    assert_eq!(Handle::remove(raw), Err(HandleError::Freed));
    let raw = Handle::into_raw(AtDrop(bomb as fn()));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        Handle::with(raw, |_| {
            Handle::remove(raw).unwrap();
            panic!("came first");
        })
    }));
    assert_eq!(common::message(panicked.unwrap_err()), "came first");
}

fn bomb() {
    panic!("a bomb");
}

#[test]
fn a_value_removed_while_others_use_it_is_dropped_once_and_last() {
    const THREADS: usize = 4;
    for round in 0..2_000 {
        let drops = Arc::new(AtomicUsize::new(0));
        let raw = Sent::of(Handle::into_raw(Counted(drops.clone())));
        let begin = Barrier::new(THREADS);
        let removed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (begin, removed) = (&begin, &removed);
                scope.spawn(move || {
                    let raw = raw.get::<Counted>();
                    begin.wait();
                    let mut uses = 0;
                    while Handle::with(raw, |value| assert_eq!(value.0.load(SeqCst), 0)).is_ok() {
                        uses += 1;
                        if (uses + thread) % 4 == round % 4 {
                            removed.fetch_add(usize::from(Handle::remove(raw).is_ok()), SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!((removed.into_inner(), drops.load(SeqCst)), (1, 1));
    }
}

#[test]
fn a_value_used_alone_is_used_by_one_thread_at_a_time() {
    const THREADS: usize = 4;
    let raw = Sent::of(Handle::into_raw(0usize));
    let added: usize = std::thread::scope(|scope| {
        let add = || {
            let add = |_| Handle::with_mut(raw.get::<usize>(), |sum| *sum += 1).is_ok();
            (0..50_000).map(add).filter(|&added| added).count()
        };
        let threads = [(); THREADS].map(|()| scope.spawn(add));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(added >= 1);
    assert_eq!(Handle::from_raw(raw.get::<usize>()), Ok(added));
}

#[test]
fn threads_make_and_free_handles_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                for round in 0..10_000u64 {
                    let raw = [0, 1, 2].map(|n| Handle::into_raw([thread, round, n]));
                    for (n, raw) in (0..).zip(raw) {
                        assert_eq!(Handle::from_raw(raw), Ok([thread, round, n]));
                    }
                }
            });
        }
    });
}
