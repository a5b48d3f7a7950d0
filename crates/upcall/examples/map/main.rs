//! Draws the stacks of its own process, with a few calls of each kind.
//!
//! Run `cargo run -p upcall --example map > map.svg`, or `--example map text` for text.

mod svg;

use std::cell::Cell;
use std::ffi::c_void;
use std::time::Duration;

use upcall::{StackChoice, downcall, downcall_on_fiber, enter, entry, sleep, snapshot, wait};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// Sorts numbers with C's `qsort` and a comparison in Rust.
fn sort(compare: extern "C" fn(*const c_void, *const c_void) -> i32) {
    let mut numbers = [3, 1, 2];
    // SAFETY: the pointer, length and size describe `numbers`, and `compare` reads its elements at
    // most.
    unsafe { libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), 4, Some(compare)) };
}

thread_local! {
    static SHOWN: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn compare_and_show(_: *const c_void, _: *const c_void) -> i32 {
    entry()
        .stack(StackChoice::Pooled)
        .enter(|| {
            if !SHOWN.replace(true) {
                downcall(|| sort(compare_by_length));
            }
            0
        })
        .unwrap_or(0)
}

extern "C" fn compare_by_length(_: *const c_void, _: *const c_void) -> i32 {
    enter(show).map_or(0, |()| 0)
}

fn show() {
    let snapshot = snapshot();
    if std::env::args().nth(1).as_deref() == Some("text") {
        print!("{snapshot}")
    } else {
        print!("{}", svg::map(&snapshot))
    }
    std::process::exit(0);
}

extern "C" fn compare_when_told(_: *const c_void, _: *const c_void) -> i32 {
    enter(|| sleep(Duration::from_secs(3600))).map_or(0, |()| 0)
}

fn main() {
    let (_sender, orders) = async_channel::unbounded::<u32>();
    for name in ["orders", "prices"] {
        let orders = orders.clone();
        drop(FIBERS.builder().name(name).spawn(move || wait(orders.recv())));
    }
    let waits = std::thread::Builder::new().name("reader".to_owned());
    let blocked = waits.spawn(move || enter(|| wait(orders.recv()).ok())).unwrap();
    let runtime = FIBERS.local_runtime().unwrap();
    let sorts = runtime.spawn_local(|| drop(enter(|| downcall_on_fiber(|| sort(compare_when_told)))));
    runtime.run_ready(10);
    while !snapshot().threads.iter().any(|thread| thread.waits.is_some()) {
        std::thread::yield_now();
    }
    enter(|| downcall(|| sort(compare_and_show))).unwrap();
    drop((blocked, sorts));
}
