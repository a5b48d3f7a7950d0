//! Closures called by real C functions. Misuse by C is in `callback_misuse.rs`.

mod common;

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::panic::catch_unwind;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier, mpsc};

use common::FIBERS;
use common::sys::{self, Exit, on_thread_of_c};
use common::{Counted, Random, last_panic};
use upcall::{callback, downcall};

/// Sorts `numbers` with C's `qsort_r`, or `qsort_s`.
fn sort(numbers: &mut [i32], mut compare: impl FnMut(i32, i32) -> c_int) {
    let compare = |a: *const c_void, b: *const c_void| -> c_int {
        // SAFETY: C passes addresses of elements of `numbers`, each an `i32`.
        let (a, b) = unsafe { (*a.cast::<i32>(), *b.cast::<i32>()) };
        compare(a, b)
    };
    callback::scope(
        compare,
        || 0,
        |compare| {
            let (first, last, data) = (compare.data_first(), compare.data_last(), compare.data());
            // SAFETY: the comparator reads elements of `numbers`, and looks up its data.
            downcall(|| unsafe { sys::sort(numbers, first, last, data) });
        },
    );
}

#[test]
fn a_sort_compares_by_a_closure_that_borrows() {
    let mut random = Random::new();
    let mut numbers: Vec<i32> = (0..1000).map(|_| random.below(10_000) as i32).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    let comparisons = Rc::new(Cell::new(0));
    sort(&mut numbers, |a, b| {
        comparisons.set(comparisons.get() + 1);
        a.cmp(&b) as c_int
    });
    assert_eq!(numbers, sorted);
    assert!(comparisons.get() > 1000 && Rc::strong_count(&comparisons) == 1);
}

#[test]
fn a_panic_crosses_a_sort() {
    let raised = catch_unwind(|| sort(&mut [3, 1, 2], |_, _| panic!("no order")));
    assert_eq!(common::message(raised.unwrap_err()), "no order");
    assert_eq!(last_panic(), "no order");
}

#[test]
fn closures_sort_inside_closures_that_sort() {
    let mut rows = [[3, 1, 2], [9, 8, 7], [6, 4, 5]];
    let mut keys: [i32; 3] = [2, 0, 1];
    sort(&mut keys, |a, b| {
        for row in [a, b] {
            sort(&mut rows[row as usize], |a, b| a - b);
        }
        rows[a as usize][0] - rows[b as usize][0]
    });
    assert_eq!((keys, rows), ([0, 2, 1], [[1, 2, 3], [7, 8, 9], [4, 5, 6]]));
}

// Functions of glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    fn tdelete(
        key: *const c_void,
        root: *mut *mut c_void,
        compare: unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
    ) -> *mut c_void;
    fn tsearch(
        key: *const c_void,
        root: *mut *mut c_void,
        compare: unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
    ) -> *mut c_void;
    fn twalk_r(
        root: *const c_void,
        action: unsafe extern "C" fn(*const c_void, c_int, *mut c_void),
        data: *mut c_void,
    );
    fn on_exit(function: unsafe extern "C" fn(c_int, *mut c_void), data: *mut c_void) -> c_int;
    fn __cxa_atexit(
        function: unsafe extern "C" fn(*mut c_void),
        data: *mut c_void,
        library: *mut c_void,
    ) -> c_int;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn twalk_r_walks_by_a_closure() {
    unsafe extern "C" fn by_address(a: *const c_void, b: *const c_void) -> c_int {
        a.cmp(&b) as c_int
    }
    let mut numbers = [10, 20, 30];
    let mut root = ptr::null_mut();
    for number in &mut numbers {
        // SAFETY: `root` is a valid tree or null, and `by_address` compares the keys without
        // reading them.
        unsafe { tsearch(ptr::from_mut(number).cast(), &mut root, by_address) };
    }
    let mut seen = Vec::new();
    let walk = |node: *const c_void, visit: c_int| {
        const POSTORDER: c_int = 1;
        const LEAF: c_int = 3;
        if visit == POSTORDER || visit == LEAF {
            // SAFETY: a node begins with its key, here the address of a live number.
            seen.push(unsafe { **node.cast::<*const i32>() });
        }
    };
    // SAFETY: `root` is a valid tree, and `twalk_r` calls the callback only until it returns.
    callback::scope(walk, || (), |walk| unsafe { twalk_r(root, walk.data_last(), walk.data()) });
    assert_eq!(seen, numbers);
    for number in &numbers {
        // SAFETY: `root` is a valid tree, and `by_address` compares the keys without reading them.
        unsafe { tdelete(ptr::from_ref(number).cast(), &mut root, by_address) };
    }
}

#[test]
fn a_thread_of_c_runs_a_closure_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Counted(drops.clone());
    let body = move || -> Exit {
        drop(counted);
        42 as Exit
    };
    let body = callback::once(body, || 0 as Exit);
    let (function, data, destroy) = (body.data_first(), body.data(), body.destroy());
    assert_eq!(on_thread_of_c(function, body.into_data()), 42);
    assert_eq!(drops.load(SeqCst), 1);
    // SAFETY: the function looks up its data, so any pointer is allowed.
    assert_eq!(unsafe { function(data) }, 0 as Exit);
    assert!(
        last_panic().contains("a_thread_of_c_runs_a_closure_once::{{closure}} is gone"),
        "{}",
        last_panic()
    );
    // A library with a destroy hook calls it after the closure's call, too.
    assert!(upcall::enter(|| panic!("something else")).is_err());
    // SAFETY: the function looks up its data, so a stale pointer is allowed.
    unsafe { destroy(data) };
    assert_eq!(last_panic(), "something else");
}

#[test]
fn once_is_dropped_by_the_hook_when_it_was_not_called() {
    let drops = Arc::new(AtomicUsize::new(0));
    let counted = Counted(drops.clone());
    let never = callback::once(move |_: c_int| drop(counted), || ());
    let destroy = never.destroy();
    // SAFETY: the function looks up its data, so any pointer is allowed.
    unsafe { destroy(never.into_data()) };
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_shared_closure_runs_on_several_threads_at_once() {
    const THREADS: usize = 3;
    let meet = Barrier::new(THREADS);
    let calls = AtomicUsize::new(0);
    let meets = |number: c_int| -> c_int {
        meet.wait();
        calls.fetch_add(1, SeqCst);
        number
    };
    callback::scope_shared(
        meets,
        || -1,
        |meets| {
            let (function, data) = (meets.data_last(), meets.data().addr());
            std::thread::scope(|scope| {
                for number in 0..THREADS as c_int {
                    scope.spawn(move || {
                        // SAFETY: the function looks up its data, so any pointer and any thread are
                        // allowed.
                        let answer = unsafe { function(number, ptr::without_provenance_mut(data)) };
                        assert_eq!(answer, number);
                    });
                }
            });
        },
    );
    assert_eq!(calls.into_inner(), THREADS);
}

#[test]
fn the_end_of_a_scope_waits_for_calls_on_other_threads() {
    for on_fiber in [false, true] {
        let ((entered, wait_entered), (go, wait_go)) = (mpsc::channel(), mpsc::channel::<()>());
        let returned = Arc::new(AtomicUsize::new(0));
        let its = returned.clone();
        let body = move || {
            let borrowed = RefCell::new(its);
            let shared = std::sync::Mutex::new((entered, wait_go, borrowed));
            let waits = || -> c_int {
                let held = shared.lock().unwrap();
                held.0.send(()).unwrap();
                held.1.recv().unwrap();
                held.2.borrow().store(1, SeqCst);
                1
            };
            let thread = callback::scope_shared(
                waits,
                || -1,
                |waits| {
                    let (function, data) = (waits.data_first(), waits.data().addr());
                    // SAFETY: the function looks up its data, so any pointer and any thread are
                    // allowed.
                    let thread =
                        std::thread::spawn(move || unsafe { function(ptr::without_provenance_mut(data)) });
                    wait_entered.recv().unwrap();
                    go.send(()).unwrap();
                    thread
                },
            );
            let there = shared.lock().unwrap().2.borrow().load(SeqCst);
            (there, thread.join().unwrap())
        };
        let ended = if on_fiber { upcall::wait(FIBERS.fiber(body)) } else { body() };
        assert_eq!((ended, returned.load(SeqCst)), ((1, 1), 1));
    }
}

#[test]
fn eight_arguments_arrive_in_their_order() {
    let all = |a: u8, b: i16, c: u32, d: i64, e: f32, f: f64, g: *const u8, h: bool| -> u64 {
        assert_eq!((a, b, c, d, e, f, g.is_null(), h), (1, -2, 3, -4, 5.5, -6.5, true, true));
        8
    };
    let all = callback::new(all, || 0);
    let first: unsafe extern "C" fn(*mut c_void, u8, i16, u32, i64, f32, f64, *const u8, bool) -> u64 =
        all.data_first();
    let last: unsafe extern "C" fn(u8, i16, u32, i64, f32, f64, *const u8, bool, *mut c_void) -> u64 =
        all.data_last();
    // SAFETY: the functions look up their data, and have the declared argument types.
    unsafe {
        assert_eq!(first(all.data(), 1, -2, 3, -4, 5.5, -6.5, ptr::null(), true), 8);
        assert_eq!(last(1, -2, 3, -4, 5.5, -6.5, ptr::null(), true, all.data()), 8);
    }
}

#[test]
fn a_callback_may_wait() {
    let sorted = FIBERS.fiber(|| {
        let mut numbers = [3, 1, 2];
        sort(&mut numbers, |a, b| {
            upcall::yield_now();
            a - b
        });
        numbers
    });
    assert_eq!(upcall::wait(sorted), [1, 2, 3]);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn closures_run_at_exit() {
    if common::part().is_none() {
        let output = common::child("closures_run_at_exit", "exit", &[]);
        let stderr = common::stderr_of_success(&output);
        assert_eq!(stderr, "on_exit with 0\n__cxa_atexit\n");
        return;
    }
    let say = |what: std::fmt::Arguments<'_>| {
        let line = format!("{what}\n");
        // SAFETY: `line` is readable for its length.
        unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
    };
    let with_status = callback::once(move |status: c_int| say(format_args!("on_exit with {status}")), || ());
    let without = callback::once(move || say(format_args!("__cxa_atexit")), || ());
    // SAFETY: both functions have the types by which C calls them.
    unsafe {
        __cxa_atexit(without.data_first(), without.into_data(), ptr::null_mut());
        on_exit(with_status.data_last(), with_status.into_data());
    }
    std::process::exit(0);
}
