//! What an upcall costs against a call, on the stack in use.

use std::hint::black_box;
use std::time::Instant;

const CALLS: u32 = 20_000;
const ROUNDS: u32 = 5;

/// Nanoseconds a call, of the fastest of some rounds.
#[derive(Clone, Copy)]
pub struct Speed {
    /// Of a C function that does nothing.
    pub bare: f64,
    /// Of a C function that makes an upcall that does nothing.
    pub upcall: f64,
}

extern "C" fn empty() {}

extern "C" fn empty_upcall() {
    let _ = upcall::enter(|| ());
}

impl Speed {
    /// Measures both.
    pub fn here() -> Self {
        Self { bare: nanoseconds(empty), upcall: nanoseconds(empty_upcall) }
    }
}

/// The loop that both are called in, through a pointer as C calls a callback.
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
