//! A global allocator with a need for stack (as if it took backtraces), on a main thread with 8 MiB
//! of stack.
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

static ON: AtomicBool = AtomicBool::new(false);
static DEEPEST: AtomicUsize = AtomicUsize::new(usize::MAX);
static CALLS: AtomicUsize = AtomicUsize::new(0);
struct A;
#[inline(never)]
fn deep(n: usize) -> u8 {
    // uses n KiB of stack
    let mut frame = [0u8; 1024];
    frame[n % 1024] = n as u8;
    std::hint::black_box(&mut frame);
    DEEPEST.fetch_min(frame.as_ptr() as usize, Relaxed);
    if n > 1 { deep(n - 1).wrapping_add(frame[3]) } else { frame[5] }
}
unsafe impl GlobalAlloc for A {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON.load(Relaxed) {
            CALLS.fetch_add(1, Relaxed);
            if let Some(n) = USES.get() { std::hint::black_box(deep(*n)); }
        }
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        unsafe { System.dealloc(p, layout) }
    }
}
static USES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
#[global_allocator]
static ALLOCATOR: A = A;

fn main() {
    let kib = std::env::args().nth(1).map_or(70, |n| n.parse().unwrap());
    USES.set(kib).unwrap();
    println!("the allocator uses {kib} KiB of stack; {} KiB are left", stackbounds::remaining().unwrap() >> 10);
    // The memory is static and must stay zero: nobody writes there.
    ON.store(true, Relaxed);
    upcall::enter(|| ()).unwrap();
    ON.store(false, Relaxed);
    println!("{} allocations during the first upcall, the deepest at {:#x}", CALLS.load(Relaxed), DEEPEST.load(Relaxed));
    let dirty = BELOW.iter().enumerate().filter(|(_, b)| b.load(Relaxed) != 0).count();
    println!("static memory that nobody writes, at {:p}: {dirty} words are not 0", &BELOW);
    let h = FIBERS.spawn(|| 1);
    println!("{:?}", h.join());
}
static BELOW: [AtomicUsize; 1 << 16] = [const { AtomicUsize::new(0) }; 1 << 16];
