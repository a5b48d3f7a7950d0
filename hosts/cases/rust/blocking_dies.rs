//! In safe code: a panicking waker ended threads of `blocking` without updating their count. After
//! 512 of these, the pool was dead, and `shutdown` waited for the threads.
#![deny(unsafe_code)]
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake};
use std::time::{Duration, Instant};
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
#[allow(unsafe_code)]
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

struct W;
impl Wake for W {
    fn wake(self: Arc<Self>) {
        panic!("too many tasks queued");
    }
}

fn main() {
    let count: usize = std::env::args().nth(1).map_or(1, |n| n.parse().unwrap());
    let mut fibers = Vec::new();
    for _ in 0..count {
        let mut fiber = Box::pin(FIBERS.fiber(|| upcall::blocking(|| std::thread::sleep(Duration::from_millis(20)))));
        let waker = Arc::new(W).into();
        let _ = fiber.as_mut().poll(&mut Context::from_waker(&waker));
        fibers.push(fiber);
        std::thread::sleep(Duration::from_millis(if count > 1 { 1 } else { 100 }));
    }
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let other = std::thread::spawn(|| upcall::blocking(|| 42));
    while !other.is_finished() && began.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("another call of blocking: {}", if other.is_finished() { format!("ended after {:?}", began.elapsed()) } else { "has not ended after 3 s".into() });
    println!("shutdown: {:?}", upcall::shutdown(Duration::from_secs(7)).map_err(|e| e.to_string()));
    std::process::exit(0);
}
