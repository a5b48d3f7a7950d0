//! A signal arriving during work on a service stack is delivered afterwards.
#![cfg(unix)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

/// Sends SIGUSR1 to its own thread from each allocation, `TO_SEND` times.
struct Signalling;

thread_local! {
    /// Signals to be sent by this thread; the test's other threads have 0.
    static TO_SEND: Cell<usize> = const { Cell::new(0) };
}

static SENT: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static HANDLED_INSIDE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to `System` with unchanged arguments.
unsafe impl GlobalAlloc for Signalling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(left) = TO_SEND.get().checked_sub(1) {
            TO_SEND.set(left);
            SENT.fetch_add(1, SeqCst);
            INSIDE.fetch_add(1, SeqCst);
            // SAFETY: the handler is installed, and only uses atomics.
            unsafe { libc::raise(libc::SIGUSR1) };
            INSIDE.fetch_sub(1, SeqCst);
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
static ALLOCATOR: Signalling = Signalling;

extern "C" fn handler(_: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
    if INSIDE.load(SeqCst) != 0 {
        HANDLED_INSIDE.fetch_add(1, SeqCst);
    }
}

/// Whether the calling thread blocks SIGUSR1.
fn is_blocked() -> bool {
    let mut mask = std::mem::MaybeUninit::uninit();
    // SAFETY: a null set changes nothing, and `mask` is written before it is read.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
        libc::sigismember(mask.as_ptr(), libc::SIGUSR1) == 1
    }
}

#[test]
fn signals_wait_until_the_thread_is_attached() {
    // SAFETY: the handler only uses atomics, so it may run at any instruction.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    let attached = std::thread::spawn(|| {
        TO_SEND.set(3);
        let result = upcall::enter(|| {
            TO_SEND.set(0);
            (HANDLED.load(SeqCst), is_blocked())
        });
        (result.unwrap(), is_blocked())
    });
    let ((handled, blocked), blocked_after) = attached.join().unwrap();
    assert!(SENT.load(SeqCst) != 0, "attaching allocates");
    // The kernel keeps at most one pending signal of each kind.
    assert!(handled >= 1, "delivered before the upcall's body");
    assert_eq!(HANDLED_INSIDE.load(SeqCst), 0, "a handler ran inside our own code");
    assert!(!blocked && !blocked_after, "the mask is as it was");
}
