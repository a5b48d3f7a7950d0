//! A global allocator with large stack use and upcalls of its own in each allocation of this
//! library.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use upcall::{StackChoice, downcall, enter, entry, snapshot};

struct Hungry;

/// KiB of stack used by each allocation.
static USES: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

#[inline(never)]
fn use_kib(kib: usize) -> u8 {
    let frame = black_box([kib as u8; 1024]);
    let below = if kib > 2 { use_kib(kib - 2) } else { 0 };
    black_box(frame[kib % 1024]) ^ below
}

// SAFETY: every call is forwarded to `System`, a valid allocator, with unchanged arguments.
unsafe impl GlobalAlloc for Hungry {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let kib = USES.load(SeqCst);
        if kib != 0 {
            CALLS.fetch_add(1, SeqCst);
            black_box(use_kib(kib));
            // A panicking body would allocate, and the allocator would run again.
            let answer = enter(|| downcall(|| 7));
            FAILED.fetch_add(usize::from(answer.ok() != Some(7)), SeqCst);
        }
        // SAFETY: the caller guarantees a layout of non-zero size, as `System.alloc` demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees a live block of this allocator, with its layout. `System`
        // allocated it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Hungry = Hungry;

#[test]
fn upcalls_work_while_the_allocator_makes_upcalls_on_much_stack() {
    for kib in [1, 70, 200] {
        let thread = std::thread::Builder::new().stack_size(4 << 20).spawn(move || {
            USES.store(kib, SeqCst);
            assert_eq!(enter(|| 1).unwrap(), 1);
            let pooled = || entry().stack(StackChoice::Pooled).min_stack(400 << 10);
            // 20 nested calls exceed the thread's spares, so the pool allocates, too.
            fn nested(left: usize, pooled: impl Fn() -> upcall::Entry + Copy) -> usize {
                if left == 0 { 0 } else { 1 + pooled().enter(|| nested(left - 1, pooled)).unwrap() }
            }
            assert_eq!(nested(20, pooled), 20);
            assert!(!snapshot().threads.is_empty());
            assert!(
                enter(|| std::panic::panic_any("on purpose")).unwrap_err().message().contains("on purpose")
            );
            upcall::detach().unwrap();
            // The next allocation of any thread attaches this one again.
            snapshot();
            USES.store(0, SeqCst);
        });
        thread.unwrap().join().unwrap();
    }
    assert!(CALLS.load(SeqCst) > 20);
    assert_eq!(FAILED.load(SeqCst), 0);
}
