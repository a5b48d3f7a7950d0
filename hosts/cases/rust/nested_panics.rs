//! A destructor resumes a fiber during a panic, and the fiber is suspended during an unwinding of
//! its own.
#![deny(unsafe_code)]
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
#[allow(unsafe_code)]
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
type F = Pin<Box<upcall::Fiber<()>>>;
struct Waits;
impl Drop for Waits { fn drop(&mut self) { println!("in the fiber's unwinding: panicking {}", std::thread::panicking()); upcall::yield_now(); println!("the fiber's unwinding goes on"); } }
struct Polls(Option<F>, std::rc::Rc<std::cell::RefCell<Option<F>>>);
impl Drop for Polls {
    fn drop(&mut self) {
        let mut fiber = self.0.take().unwrap();
        let polled = fiber.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        println!("polled during a panic: {}", if polled.is_pending() { "pending" } else { "ready" });
        *self.1.borrow_mut() = Some(fiber);
    }
}
fn main() {
    std::panic::set_hook(Box::new(|info| println!("panic: {info}")));
    let kept = std::rc::Rc::default();
    let fiber: F = Box::pin(FIBERS.fiber(|| { let _ = catch_unwind(|| { let _w = Waits; panic!("inside the fiber") }); println!("fiber caught its panic"); }));
    let polls = Polls(Some(fiber), std::rc::Rc::clone(&kept));
    let _ = catch_unwind(AssertUnwindSafe(|| { let _p = polls; panic!("outer") }));
    println!("after the outer panic was caught, nothing unwinds on this thread: panicking() = {}", std::thread::panicking());
    let m = std::sync::Mutex::new(1);
    let runtime = FIBERS.local_runtime().unwrap();
    let handle = runtime.spawn_local(|| 1);
    println!("a wait for a local fiber ...");
    std::thread::spawn(|| { std::thread::sleep(std::time::Duration::from_secs(2)); println!("  hangs"); std::process::exit(0) });
    println!("{:?}", handle.join());
    let mut fiber = kept.borrow_mut().take().unwrap();
    if let Poll::Pending = fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())) { println!("pending again") }
    println!("panicking() = {}", std::thread::panicking());
    let _ = m;
}
