#![deny(unsafe_code)]
use std::sync::LazyLock;
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
#[allow(unsafe_code)]
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
static SERVER: LazyLock<u32> = LazyLock::new(|| { upcall::yield_now(); 42 });
fn main() {
    std::thread::spawn(|| { std::thread::sleep(std::time::Duration::from_secs(3)); println!("has hung for 3 s"); std::process::exit(0) });
    let runtime = FIBERS.local_runtime().unwrap();
    let one = runtime.spawn_local(|| *SERVER);
    let two = runtime.spawn_local(|| *SERVER);
    println!("{:?} {:?}", one.join(), two.join());
}
