//! The cost of an upcall and of a bare call, on the current stack.

use std::hint::black_box;
use std::time::Instant;

const CALLS: u32 = 20_000;
const ROUNDS: u32 = 5;

/// Nanoseconds a call, in the fastest round.
#[derive(Clone, Copy)]
pub struct Speed {
    /// A call of an empty C function.
    pub bare: f64,
    /// A call of a C function that makes an empty upcall.
    pub upcall: f64,
}

extern "C" fn empty() {}

extern "C" fn empty_upcall() {
    let _ = upcall::enter(|| ());
}

impl Speed {
    /// Measures both kinds of call.
    pub fn here() -> Self {
        Self { bare: nanoseconds(empty), upcall: nanoseconds(empty_upcall) }
    }
}

/// Times the loop of both measurements: calls through a pointer, as C calls a callback.
#[inline(never)]
fn nanoseconds(function: extern "C" fn()) -> f64 {
    let function = black_box(function);
    let round = || {
        let began = Instant::now();
        for _ in 0..CALLS {
            function();
        }
        began.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}
