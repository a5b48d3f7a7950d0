//! With `panic = "abort"`, dropping or aborting a waiting fiber ended the process.
#![deny(unsafe_code)]
use std::future::{Future, pending};
use std::task::{Context, Waker};
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
#[allow(unsafe_code)]
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("abort") => {
            let handle = FIBERS.spawn(|| upcall::wait(pending::<()>()));
            std::thread::sleep(std::time::Duration::from_millis(50));
            handle.abort();
            println!("{:?}", handle.join());
        }
        Some("runtime") => {
            let runtime = FIBERS.local_runtime().unwrap();
            let _ = runtime.spawn_local(|| upcall::wait(pending::<()>()));
            runtime.run_ready(1);
            drop(runtime);
        }
        _ => {
            let mut fiber = Box::pin(FIBERS.fiber(|| upcall::wait(pending::<()>())));
            let _ = fiber.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop(fiber);
        }
    }
    println!("still here");
}
