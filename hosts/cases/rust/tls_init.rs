//! In safe code: two fibers of one thread use a `thread_local!` with an initialiser that waits.
#![forbid(unsafe_code)]
use std::cell::Cell;
use std::hint::black_box;

/// Safe code cannot make the promise. This does not compile.
const FIBERS: upcall::Fibers = upcall::Fibers::promise();

thread_local! {
    /// A connection, made at its first use. Making it waits, as for a handshake.
    static CONNECTION: String = connect();
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

fn connect() -> String {
    upcall::yield_now();
    COUNT.set(COUNT.get() + 1);
    format!("connection number {}, a string on the heap..............", COUNT.get())
}

fn work(name: &'static str) {
    CONNECTION.with(|connection| {
        let text: &str = connection.as_str(); // a borrow, good for the closure
        println!("{name}: before {text:?}");
        upcall::yield_now();
        // Another allocation gets the freed memory.
        let spray: Vec<String> = (0..64).map(|_| "X".repeat(text.len())).collect();
        black_box(&spray);
        println!("{name}: after  {:?}", String::from_utf8_lossy(text.as_bytes()));
    });
}

fn main() {
    let runtime = FIBERS.local_runtime().unwrap();
    let one = runtime.spawn_local(|| work("one"));
    let two = runtime.spawn_local(|| work("two"));
    one.join().unwrap();
    two.join().unwrap();
}
