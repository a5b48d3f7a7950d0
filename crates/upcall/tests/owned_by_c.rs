//! Memory for C: given out once, freed once, by its pointer only.

mod common;

use std::collections::HashSet;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{last_panic, time_limit};
use upcall::{c::memory_free, into_c_slice, into_c_str};

/// Keeps other tests from taking an address just freed, which a test frees a second time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees as C does.
fn free<T>(memory: *mut T) -> i32 {
    // SAFETY: no test uses memory after it has freed it.
    unsafe { memory_free(memory.cast()) }
}

fn slice<T: Copy>(values: Vec<T>) -> (*mut T, usize) {
    let mut len = MaybeUninit::uninit();
    let first = into_c_slice(values, &mut len);
    // SAFETY: `into_c_slice` writes the length.
    (first, unsafe { len.assume_init() })
}

#[test]
fn strings() {
    let _alone = alone();
    for text in ["größe", "", &"long ".repeat(10_000)] {
        let given = into_c_str(text).unwrap();
        // SAFETY: the string is C's, and is not freed yet.
        assert_eq!(unsafe { CStr::from_ptr(given) }.to_str(), Ok(text));
        assert_eq!(free(given), 0);
    }
    let error = into_c_str("a\0b").unwrap_err();
    assert_eq!(error.nul_position(), 1);
}

#[test]
fn slices() {
    let _alone = alone();
    let mut with_room = Vec::with_capacity(100);
    with_room.extend([1u64, 2, 3]);
    let (first, len) = slice(with_room);
    // SAFETY: the array is C's, of this length, and is not freed yet.
    assert_eq!(unsafe { std::slice::from_raw_parts(first, len) }, [1, 2, 3]);
    assert_eq!(free(first), 0);
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Aligned;

#[test]
fn empty_slices_have_addresses_of_their_own() {
    let _alone = alone();
    let empty: Vec<_> = (0..3).map(|_| slice(Vec::<u32>::new())).collect();
    let addresses: HashSet<_> = empty.iter().map(|(first, _)| first.addr()).collect();
    assert!(addresses.len() == 3 && empty.iter().all(|(first, len)| !first.is_null() && *len == 0));
    for (first, _) in empty {
        assert_eq!([free(first), free(first)], [0, -1]);
    }
    let (first, len) = slice(vec![Aligned; 5]);
    assert!(len == 5 && first.is_aligned());
    assert_eq!(free(first), 0);
}

#[test]
fn null_is_freed_without_effect() {
    let _alone = alone();
    assert_eq!(free(null_mut::<c_void>()), 0);
}

#[test]
fn other_pointers_are_errors() {
    let _alone = alone();
    let given = into_c_str("text").unwrap();
    let mut local = 0;
    let wrong = [
        (&raw mut local).cast(),
        given.wrapping_add(1).cast(),
        given.wrapping_sub(8).cast(),
        without_provenance_mut(8),
    ];
    for pointer in wrong {
        assert_eq!(free::<c_void>(pointer), -1);
        let text = format!("memory_free: {pointer:p} is no memory of this library, or was freed already");
        assert!(last_panic().starts_with(&text), "{}", last_panic());
    }
    assert_eq!(free(given), 0);
    assert_eq!(free(given), -1);
}

#[test]
fn from_all_threads_at_once() {
    let _alone = alone();
    let _limit = time_limit("from_all_threads_at_once");
    std::thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || {
                for i in 0..500 {
                    let text = format!("{n} {i}");
                    let (one, (two, _)) = (into_c_str(text.as_str()).unwrap(), slice(vec![n; i]));
                    // SAFETY: the string is C's, and is not freed yet.
                    assert_eq!(unsafe { CStr::from_ptr(one) }.to_str(), Ok(text.as_str()));
                    assert_eq!([free(two), free(one)], [0, 0]);
                }
            });
        }
    });
}
