//! In safe code: a fiber borrows a `thread_local!` across a wait. It is dropped after the variable,
//! at the thread's exit.
#![forbid(unsafe_code)]
use std::cell::RefCell;
use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{Context, Waker};

/// Safe code cannot make the promise. This does not compile.
const FIBERS: upcall::Fibers = upcall::Fibers::promise();

struct Guard<'a>(&'a str);
impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let spray: Vec<String> = (0..64).map(|_| "X".repeat(56)).collect();
        std::hint::black_box(&spray);
        println!("a destructor of the fiber sees {:?}", String::from_utf8_lossy(self.0.as_bytes()));
    }
}

thread_local! {
    static FIBER: RefCell<Option<Pin<Box<upcall::Fiber<()>>>>> = const { RefCell::new(None) };
    static NAME: String = "a value of a thread-local, alive as long as its thread..".to_owned();
}

fn main() {
    std::thread::spawn(|| {
        FIBER.with(|_| ()); // its destructor is registered first, and runs last
        let mut fiber = Box::pin(FIBERS.fiber(|| {
            NAME.with(|name| {
                let _guard = Guard(name);
                upcall::wait(pending::<()>());
            })
        }));
        assert!(fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        FIBER.set(Some(fiber));
    })
    .join()
    .unwrap();
}
