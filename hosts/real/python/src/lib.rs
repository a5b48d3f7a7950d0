//! The Rust functions called by Python: `c` through ctypes and cffi, `module` as a PyO3 module.

mod c;
#[path = "../../host_calls.rs"]
mod host_calls;
mod module;

pub use c::*;
pub use host_calls::*;
pub use module::*;

use upcall::yield_now;

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(host, fibers = FIBERS);

/// Waits for a worker's fiber. Returns `number`.
fn wait_for_worker<T: Send + 'static>(number: T) -> T {
    let fiber = FIBERS.spawn(move || {
        yield_now();
        number
    });
    fiber.join().expect("it does not panic")
}

/// Returns the number of open calls of this thread, upcalls and downcalls.
fn open_calls() -> usize {
    let snapshot = upcall::snapshot();
    snapshot.threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.calls.len())
}
