//! Calls from a thread's last key destructors leave nothing of the thread behind. Each function is
//! tried as the only one called there.

#![cfg(unix)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::AtomicIsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use upcall::{FiberLocal, StackChoice, callback, enter, entry};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is forwarded to `System` with unchanged arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: the caller guarantees a layout of non-zero size, as `System.alloc` demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: the caller guarantees a live block of this allocator, with its layout. `System`
        // allocated it.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static CALL: Cell<Option<fn()>> = const { Cell::new(None) };
    static ROUND: Cell<usize> = const { Cell::new(0) };
}

/// The least number of destructor rounds promised by the system.
const ROUNDS: usize = 4;

fn key() -> libc::pthread_key_t {
    extern "C" fn destructor(value: *mut c_void) {
        ROUND.set(ROUND.get() + 1);
        if ROUND.get() == ROUNDS {
            CALL.get().unwrap()();
        } else {
            // SAFETY: `key()` is a valid key, never deleted.
            unsafe { libc::pthread_setspecific(key(), value) };
        }
    }
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    *KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is valid for writing, and the destructor expects this key's values.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
        key
    })
}

/// Runs threads that first make an upcall, and then call `call` in their last round of destructors.
fn run_threads(count: usize, call: fn()) {
    for _ in 0..count {
        std::thread::spawn(move || {
            enter(|| ()).unwrap();
            CALL.set(Some(call));
            // SAFETY: `key()` is a valid key, never deleted.
            assert_eq!(unsafe { libc::pthread_setspecific(key(), (&raw const ALLOCATOR).cast()) }, 0);
        })
        .join()
        .unwrap();
    }
}

extern "C" fn nothing() {}

static LOCAL: FiberLocal<Cell<u32>> = FiberLocal::new(|| Cell::new(0));

const CALLS: &[(&str, fn())] = &[
    ("enter", || enter(|| ()).unwrap()),
    ("entry, pooled", || entry().stack(StackChoice::Pooled).enter(|| ()).unwrap()),
    ("entry, caller", || entry().stack(StackChoice::Caller).enter(|| ()).unwrap()),
    ("downcall", || upcall::downcall(|| nothing())),
    ("downcall_on_fiber", || upcall::downcall_on_fiber(|| nothing())),
    ("with_stack", || upcall::with_stack(16 << 20, || ())),
    ("attach", || upcall::attach().unwrap()),
    ("detach", || upcall::detach().unwrap()),
    ("wait, ready", || upcall::wait(async {})),
    ("sleep", || upcall::sleep(Duration::from_micros(10))),
    ("yield_now", upcall::yield_now),
    ("FiberLocal", || LOCAL.with(|local| local.set(1))),
    ("Fiber, dropped", || drop(FIBERS.fiber(|| ()))),
    ("Fiber, polled", || upcall::wait(FIBERS.fiber(upcall::yield_now))),
    ("spawn", || FIBERS.spawn(|| ()).join().unwrap()),
    ("blocking", || upcall::blocking(|| ())),
    ("scope", || FIBERS.scope(|scope| scope.spawn(|| ()).join().unwrap())),
    ("callback::scope", || callback::scope(|_: c_int| (), || (), |_| ())),
    ("callback::scope_shared", || callback::scope_shared(|_: c_int| (), || (), |_| ())),
    ("LocalRuntime", || {
        let runtime = FIBERS.local_runtime().unwrap();
        let fiber = runtime.spawn_local(|| ());
        assert_eq!(runtime.run_ready(8), 1);
        fiber.join().unwrap();
    }),
    ("snapshot", || drop(upcall::snapshot())),
    ("upcall_report_install", || assert_eq!(upcall::c::report_install(), 0)),
    ("upcall_thread_attach", || assert_eq!(upcall::c::thread_attach(), 0)),
    ("upcall_thread_detach", || assert_eq!(upcall::c::thread_detach(), 0)),
    ("a panic", || drop(enter(|| std::panic::resume_unwind(Box::new(()))))),
];

#[test]
fn nothing_is_left_of_threads_whose_last_destructors_call() {
    // Creates the reserves for exiting threads.
    run_threads(200, || enter(|| ()).unwrap());
    for (name, call) in CALLS {
        run_threads(80, *call);
        let left_of_80 = || {
            let (live, threads) = (LIVE.load(Relaxed), upcall::snapshot().threads.len());
            run_threads(80, *call);
            (LIVE.load(Relaxed) - live, upcall::snapshot().threads.len().saturating_sub(threads))
        };
        // Workers keep a little memory: other fibers may run on them next. A worker that begins
        // meanwhile is a thread with more, once.
        let mut rounds = (0..4).map(|_| left_of_80());
        let all_is_gone = rounds.any(|(bytes, threads)| bytes < 80 * 16 && threads == 0);
        assert!(all_is_gone, "{name}: bytes or threads are left of each 80 threads");
    }
}
