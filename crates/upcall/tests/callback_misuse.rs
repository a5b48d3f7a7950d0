//! Closures called late, twice, concurrently, inside themselves, and with a wrong pointer.

mod common;

use std::cell::Cell;
use std::ffi::{c_double, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};

use common::{AtDrop, Counted, last_panic};
use upcall::{Handle, callback, downcall};

type Calls = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

thread_local! {
    static CALLED_BACK: Cell<Option<(Calls, *mut c_void)>> = const { Cell::new(None) };
}

fn call_back(number: c_int) -> c_int {
    let (function, data) = CALLED_BACK.get().unwrap();
    // SAFETY: the function looks up its data, so any pointer is allowed.
    downcall(|| unsafe { function(data, number) })
}

#[test]
fn data_that_is_none_of_the_callbacks_is_refused() {
    let one = callback::new(|_: c_int| -> c_int { 1 }, || -1);
    let two = callback::new(|_: c_int| -> c_int { 2 }, || -1);
    let handle = Handle::into_raw(3);
    let function = one.data_first();
    let local = 0;
    let cases = [
        (ptr::null_mut(), "got a null pointer as its data"),
        (ptr::without_provenance_mut(1), "got 0x1 as its data"),
        (ptr::from_ref(&local).cast_mut().cast(), "as its data, which is none"),
        (two.data(), "got the data of"),
        (handle.cast(), "got the data of i32"),
    ];
    for (data, message) in cases {
        // SAFETY: both functions look up their data, so any pointer is allowed.
        unsafe {
            assert_eq!(function(data, 0), -1);
            assert!(last_panic().contains(message), "{}", last_panic());
            one.destroy()(data);
            assert!(last_panic().contains(message), "{}", last_panic());
        }
    }
    // SAFETY: the functions look up their data.
    assert_eq!(unsafe { (function(one.data(), 0), two.data_first()(two.data(), 0)) }, (1, 2));
    assert_eq!(Handle::from_raw(handle), Ok(3));
}

#[test]
fn a_closure_is_destroyed_once_and_then_gone() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Counted(drops.clone());
    let mut sum = 0;
    let add = move |a: c_int, b: c_double| -> c_int {
        let _ = &counted;
        sum += a + b as c_int;
        sum
    };
    let add = callback::new(add, || -1);
    let (first, last, destroy) = (add.data_first(), add.data_last(), add.destroy());
    let data = add.into_data();
    // SAFETY: the functions look up their data, so a stale pointer is allowed.
    unsafe {
        assert_eq!((first(data, 1, 2.0), last(1, 2.0, data)), (3, 6));
        destroy(data);
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(first(data, 1, 2.0), -1);
        assert!(last_panic().contains("is gone"), "{}", last_panic());
        assert!(upcall::enter(|| panic!("something else")).is_err());
        destroy(data);
        assert!(last_panic().contains("is gone"), "{}", last_panic());
    }
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_closure_called_inside_itself_is_refused_unless_it_is_shared() {
    let countdown = |n: c_int| -> c_int { if n == 0 { 0 } else { n + call_back(n - 1) } };
    let shared = callback::shared(countdown, || -100);
    CALLED_BACK.set(Some((shared.data_first(), shared.data())));
    assert_eq!(call_back(3), 6);
    let alone = callback::new(countdown, || -100);
    CALLED_BACK.set(Some((alone.data_first(), alone.data())));
    assert_eq!(call_back(3), -97);
    assert!(last_panic().contains("runs already, and changes what it has"), "{}", last_panic());
    assert_eq!(call_back(0), 0);
    callback::scope(
        countdown,
        || -100,
        |scoped| {
            CALLED_BACK.set(Some((scoped.data_first(), scoped.data())));
            assert_eq!((call_back(3), call_back(0)), (-97, 0));
        },
    );
    assert_eq!(call_back(0), -100);
    assert!(last_panic().contains("its scope has ended"), "{}", last_panic());
}

#[test]
fn a_closure_destroyed_while_it_runs_lives_until_it_returns() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Counted(drops.clone());
    let destroy = Rc::new(Cell::new(None));
    struct Destroy(Rc<Cell<Option<(unsafe extern "C" fn(*mut c_void), *mut c_void)>>>);
    // SAFETY: the `Rc` and the pointer never leave this test's thread.
    unsafe impl Send for Destroy {}
    let its = Destroy(destroy.clone());
    let ends = callback::new(
        move |number: c_int| -> c_int {
            let its = &its;
            let (destroy, data) = its.0.get().unwrap();
            // SAFETY: the function looks up its data, so a call inside the closure is allowed.
            downcall(|| unsafe { destroy(data) });
            assert_eq!((counted.0.load(SeqCst), call_back(1)), (0, -1));
            number
        },
        || -1,
    );
    let (function, data) = (ends.data_first(), ends.data());
    CALLED_BACK.set(Some((function, data)));
    destroy.set(Some((ends.destroy(), ends.into_data())));
    assert_eq!(call_back(7), 7);
    assert_eq!((drops.load(SeqCst), Rc::strong_count(&destroy)), (1, 1));
    assert_eq!(call_back(7), -1);
}

#[test]
fn destructors_that_panic_do_so_in_an_upcall() {
    let bomb = AtDrop(|| panic!("a bomb"));
    let callback = callback::new(
        move || {
            let _ = &bomb;
        },
        || (),
    );
    let (destroy, data) = (callback.destroy(), callback.into_data());
    // SAFETY: the function looks up its data.
    unsafe { destroy(data) };
    assert_eq!(last_panic(), "a bomb");
    let bomb = AtDrop(|| panic!("another bomb"));
    let callback = callback::new(
        move || {
            let _ = &bomb;
        },
        || (),
    );
    let (destroy, data) = (callback.destroy(), callback.into_data());
    // SAFETY: the function looks up its data.
    let raised = catch_unwind(|| downcall(|| unsafe { destroy(data) }));
    assert_eq!(common::message(raised.unwrap_err()), "another bomb");
}

#[test]
fn a_closure_in_use_by_one_thread_is_refused_to_another() {
    let ((entered, wait_entered), (go, wait_go)) = (mpsc::channel(), mpsc::channel::<()>());
    let waits = move |wait: c_int| -> c_int {
        if wait != 0 {
            entered.send(()).unwrap();
            wait_go.recv().unwrap();
        }
        wait
    };
    let waits = callback::new(waits, || -1);
    let (function, data) = (waits.data_first(), waits.data().addr());
    // SAFETY: the function looks up its data, so any pointer and any thread are allowed.
    let call = move |wait| unsafe { function(ptr::without_provenance_mut(data), wait) };
    let thread = std::thread::spawn(move || call(1));
    wait_entered.recv().unwrap();
    assert_eq!(call(0), -1);
    assert!(last_panic().contains("one thread at a time"), "{}", last_panic());
    go.send(()).unwrap();
    assert_eq!((thread.join().unwrap(), call(0)), (1, 0));
}

#[test]
fn a_closure_of_a_scope_is_for_its_thread() {
    let calls = Rc::new(Cell::new(0));
    let count = || -> c_int {
        calls.set(calls.get() + 1);
        calls.get()
    };
    callback::scope(
        count,
        || -1,
        |count| {
            let (function, data) = (count.data_first(), count.data().addr());
            let other = std::thread::spawn(move || {
                // SAFETY: the function looks up its data, so a call on a wrong thread is an error
                // at worst.
                (unsafe { function(ptr::without_provenance_mut(data)) }, last_panic())
            });
            let (answer, message) = other.join().unwrap();
            assert_eq!(answer, -1);
            assert!(message.contains("on another thread than that of its scope"), "{message}");
            // SAFETY: the function looks up its data.
            assert_eq!(unsafe { function(count.data()) }, 1);
        },
    );
}

#[test]
fn a_scope_that_panics_ends() {
    let kept = Cell::new(None);
    let raised = catch_unwind(AssertUnwindSafe(|| {
        let local = [7];
        callback::scope(
            || -> c_int { local[0] },
            || -1,
            |callback| {
                kept.set(Some((callback.data_first(), callback.data())));
                panic!("in the scope");
            },
        )
    }));
    assert!(raised.is_err());
    let (function, data) = kept.get().unwrap();
    // SAFETY: the function looks up its data, so a stale pointer is allowed.
    assert_eq!(unsafe { function(data) }, -1);
}

#[test]
fn a_callback_that_is_dropped_takes_its_closure_along() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Counted(drops.clone());
    let callback = callback::shared(move || -> c_int { counted.0.load(SeqCst) as c_int }, || -1);
    let (function, data) = (callback.data_first(), callback.data());
    // SAFETY: the function looks up its data.
    assert_eq!(unsafe { function(data) }, 0);
    drop(callback);
    assert_eq!(drops.load(SeqCst), 1);
    // SAFETY: the function looks up its data, so a stale pointer is allowed.
    assert_eq!(unsafe { function(data) }, -1);
}
