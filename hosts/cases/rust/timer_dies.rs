//! In safe code: a panicking waker ended the timer thread of the whole process. The waker of the
//! async book panics if its queue is full or its executor is gone.
#![deny(unsafe_code)]
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
#[allow(unsafe_code)]
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

struct Task(SyncSender<()>);
impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.try_send(()).expect("too many tasks queued"); // the async book, 02_03_wakeups / 02_04_executor
    }
}

fn main() {
    let (sender, executor) = sync_channel(1);
    let waker = Arc::new(Task(sender)).into();
    let mut fiber = Box::pin(FIBERS.fiber(|| upcall::sleep(Duration::from_millis(50))));
    assert!(fiber.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(executor); // the executor is gone; the fiber is still there
    std::thread::sleep(Duration::from_millis(200));
    // An unrelated fiber:
    let began = Instant::now();
    let other = FIBERS.spawn(move || upcall::sleep(Duration::from_millis(10)));
    while !other.is_finished() && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("another fiber's sleep of 10 ms: {}", if other.is_finished() { format!("ended after {:?}", began.elapsed()) } else { "has not ended after 5 s".into() });
    std::process::exit(0);
}
