//! The Rust functions that Python calls: `c` through ctypes and cffi, `module` as a module made with PyO3.

mod c;
mod module;

pub use c::*;
pub use module::*;

use upcall::{spawn, yield_now};

/// Waits for a worker's fiber.
fn wait_for_worker<T: Send + 'static>(number: T) -> T {
    let fiber = spawn(move || {
        yield_now();
        number
    });
    fiber.join().expect("it does not panic")
}

/// How many calls of this thread are open, both ways.
fn open_calls() -> usize {
    let snapshot = upcall::snapshot();
    snapshot.threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.calls.len())
}
