//! The futures of all libraries, and a counting allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize};
use std::task::{Context, Poll, Waker};

/// The value of every operation.
pub const VALUE: i64 = 7;

/// An operation, ready at once.
pub async fn ready() -> i64 {
    VALUE
}

/// An operation, ready at its second poll.
pub async fn yields() -> i64 {
    Yield(false).await;
    VALUE
}

struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// An operation waiting for ever, with 48 bytes of its own and a waker: 64 bytes.
///
/// Futures of sockets, channels and timers keep a waker, too.
pub fn waits() -> Waits {
    Waits { state: [0; 48], waker: None }
}

/// The future of [`waits`].
pub struct Waits {
    state: [u8; 48],
    waker: Option<Waker>,
}

/// The number of operations that have begun to wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Future for Waits {
    type Output = i64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<i64> {
        std::hint::black_box(&self.state);
        if self.waker.is_none() {
            self.waker = Some(context.waker().clone());
            WAITING.fetch_add(1, Relaxed);
        }
        Poll::Pending
    }
}

/// The number of operations that have begun to wait since the start of the program.
#[unsafe(no_mangle)]
pub extern "C" fn bench_waiting() -> usize {
    WAITING.load(Relaxed)
}

/// Counts allocated bytes from now on.
#[unsafe(no_mangle)]
pub extern "C" fn bench_count_bytes() {
    COUNTS.store(true, Relaxed);
}

/// The bytes allocated and not freed since `bench_count_bytes`.
#[unsafe(no_mangle)]
pub extern "C" fn bench_bytes() -> isize {
    BYTES.load(Relaxed)
}

/// Whether bytes are counted: not while time is measured.
static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

fn count(bytes: isize) {
    if COUNTS.load(Relaxed) {
        BYTES.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's guarantees are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's guarantees are the same.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's guarantees are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's guarantees are the same.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
