//! Asynchronous functions, awaited by a C++ coroutine through cxx-async.

#![allow(missing_docs, reason = "cxx-async generates undocumented items")]

use std::future::Future;
use std::pin::Pin;

#[cxx::bridge]
mod ffi {
    unsafe extern "C++" {
        include!("operations.h");

        type RustFutureI64 = crate::RustFutureI64;
    }

    extern "Rust" {
        fn ready() -> RustFutureI64;
        fn yields() -> RustFutureI64;
        fn waits() -> RustFutureI64;
    }
}

// SAFETY: `operations.h` defines the same type with the same output.
#[cxx_async::bridge]
unsafe impl Future for RustFutureI64 {
    type Output = i64;
}

fn ready() -> RustFutureI64 {
    RustFutureI64::infallible(benchtasks_common::ready())
}

fn yields() -> RustFutureI64 {
    RustFutureI64::infallible(benchtasks_common::yields())
}

fn waits() -> RustFutureI64 {
    RustFutureI64::infallible(benchtasks_common::waits())
}
