//! Stacks of Windows: their bounds in the TEB, their growth, and their memory.
//!
//! The system grows a stack, and dispatches exceptions on it, only if the TEB describes the stack
//! in use.
#![cfg(windows)]

mod common;

use std::hint::black_box;
use std::mem::{MaybeUninit, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::thread;

use common::sys::{Teb, deep};
use common::{FIBERS, child, message, part, poll, stderr_of_success, time_limit};
use corosensei::stack::{Stack, StackPointer, StackTebFields};
use corosensei::{Coroutine, CoroutineResult};
use upcall::{StackChoice, downcall, downcall_on_fiber, enter, entry, wait, with_stack, yield_now};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_PRIVATE, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_GUARD, PAGE_READWRITE, VirtualAlloc,
    VirtualQuery,
};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Runs `f` on a pooled stack.
fn pooled<R>(f: impl FnOnce() -> R) -> R {
    entry().stack(StackChoice::Pooled).enter(f).unwrap()
}

/// Asserts that the TEB describes `stack`, which is in use and may have grown.
#[track_caller]
fn on(stack: &Teb) {
    let now = Teb::right();
    assert_eq!(now.stack(), stack.stack());
    assert!(now.limit <= stack.limit, "a stack never shrinks: {now:x?} {stack:x?}");
}

/// Has a frame of 16 pages.
#[inline(never)]
fn wide() {
    assert_eq!(black_box([1_u8; 16 * 4096])[4096], 1);
}

/// Asserts that a panic is caught.
fn panics() {
    assert!(catch_unwind(|| panic!()).is_err());
}

/// Runs `f` on a thread with 16 MiB of stack.
fn on_a_thread(f: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, f).unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn the_teb_is_right_in_nested_calls() {
    let own = Teb::right();
    pooled(|| {
        let first = Teb::right();
        assert_ne!(first.stack(), own.stack());
        downcall(|| {
            on(&own);
            pooled(|| {
                let second = Teb::right();
                assert_ne!(second.stack(), first.stack());
                downcall(|| {
                    on(&own);
                    let error = enter(|| panic!("caught")).map(|never: ()| never).unwrap_err();
                    assert_eq!(message(error.into_payload().unwrap()), "caught");
                    on(&own);
                });
                on(&second);
            });
            on(&own);
        });
        on(&first);
        with_stack(4 << 20, || {
            let further = Teb::right();
            assert!(further.base - further.low > 3 << 20);
            downcall(|| on(&own));
            on(&further);
            panics();
        });
        on(&first);
    });
    on(&own);
    // Panics leave downcalls and stacks.
    let raises = || pooled(|| downcall(|| drop(enter(|| panic!()).map(|never: ()| never))));
    assert!(catch_unwind(AssertUnwindSafe(raises)).is_err());
    on(&own);
}

#[test]
fn the_teb_is_right_on_fibers() {
    let own = Teb::right();
    let mut fiber = Box::pin(FIBERS.fiber(|| {
        let here = Teb::right();
        for _ in 0..3 {
            yield_now();
            on(&here);
            downcall_on_fiber(|| {
                on(&here);
                enter(yield_now).unwrap();
                on(&here);
            });
            downcall(|| assert_ne!(Teb::right().stack(), here.stack()));
            with_stack(2 << 20, || {
                let further = Teb::right();
                assert_ne!(further.stack(), here.stack());
                yield_now();
                on(&further);
                // Polled from elsewhere by now, C runs elsewhere.
                downcall(|| assert_ne!(Teb::right().stack(), further.stack()));
                panics();
            });
            on(&here);
            panics();
        }
    }));
    for round in 0.. {
        let mut ended = false;
        let mut polls = || {
            let here = Teb::right();
            ended = poll(&mut fiber).is_ready();
            on(&here);
        };
        match round % 3 {
            0 => polls(),
            1 => deep(64 << 10, &mut polls),
            _ => pooled(polls),
        }
        on(&own);
        if ended {
            break;
        }
    }
}

/// The system lowers the limit in the TEB. It must be the lowered one afterwards.
fn grows_in_a_downcall() {
    const DEEP: usize = 4 << 20;
    let own = Teb::right();
    pooled(|| {
        downcall(|| deep(DEEP, &mut || on(&own)));
        downcall(|| deep(DEEP, &mut panics));
    });
    on(&own);
    assert!(Teb::now().limit <= own.base - DEEP);
    deep(DEEP, &mut || {
        on(&own);
        panics();
        enter(panics).unwrap();
    });
}

#[test]
fn a_system_stack_grows_in_a_downcall() {
    on_a_thread(grows_in_a_downcall);
}

/// A stack of the host. The system grows it when the guard below its committed part is touched.
struct Grows {
    base: usize,
    limit: usize,
    low: usize,
}

impl Grows {
    const COMMITTED: usize = 64 << 10;
    const GUARD: usize = 8 << 10;

    fn new(size: usize) -> Self {
        // SAFETY: the system chooses an unused range, and parts of it are committed.
        unsafe {
            let low = VirtualAlloc(ptr::null(), size, MEM_RESERVE, PAGE_READWRITE);
            assert!(!low.is_null());
            let base = low as usize + size;
            let limit = base - Self::COMMITTED;
            let guard = limit - Self::GUARD;
            let commit = |at: usize, size, how| VirtualAlloc(at as *const _, size, MEM_COMMIT, how);
            assert!(!commit(limit, Self::COMMITTED, PAGE_READWRITE).is_null());
            assert!(!commit(guard, Self::GUARD, PAGE_READWRITE | PAGE_GUARD).is_null());
            Self { base, limit, low: low as usize }
        }
    }
}

// SAFETY: the memory is reserved for this stack and never released. It grows, with a guard below.
unsafe impl Stack for Grows {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.base).unwrap()
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.low).unwrap()
    }

    fn teb_fields(&self) -> StackTebFields {
        StackTebFields {
            StackBase: self.base,
            StackLimit: self.limit,
            DeallocationStack: self.low,
            GuaranteedStackBytes: 0,
        }
    }

    fn update_teb_fields(&mut self, stack_limit: usize, _guaranteed_stack_bytes: usize) {
        self.limit = stack_limit;
    }
}

/// Unlike a thread's stack, it grows in wine, too.
#[test]
fn a_coroutines_stack_grows_in_a_downcall() {
    on_a_thread(|| {
        enter(|| ()).unwrap();
        let stack = Grows::new(8 << 20);
        let mut coroutine = Coroutine::<(), (), (), _>::with_stack(stack, |_, ()| {
            let before = Teb::right();
            grows_in_a_downcall();
            assert!(Teb::right().limit < before.limit);
        });
        assert!(matches!(coroutine.resume(()), CoroutineResult::Return(())));
    });
}

#[test]
fn a_pooled_stack_grows_and_is_used_again() {
    const DEEP: usize = 128 << 10;
    on_a_thread(|| {
        let first = pooled(|| {
            let before = Teb::right();
            deep(DEEP, &mut panics);
            // Grown, and away from it for a downcall.
            let grown = Teb::right();
            assert!(grown.limit < before.limit, "{before:x?} {grown:x?}");
            downcall(|| ());
            assert_eq!(Teb::right(), grown);
            deep(DEEP, &mut panics);
            grown
        });
        for _ in 0..3 {
            pooled(|| {
                on(&first);
                wide();
                deep(DEEP, &mut panics);
                deep(DEEP + (32 << 10), &mut panics);
            });
        }
        let suspended = FIBERS.fiber(|| {
            deep(DEEP, &mut || {
                yield_now();
                wide();
                panics();
            });
            yield_now();
            deep(2 * DEEP, &mut panics);
        });
        wait(suspended);
    });
}

/// The memory of large idle stacks is given back to the system.
#[test]
fn a_stack_without_its_memory_is_used_again() {
    const LARGE: usize = 64 << 20;
    on_a_thread(|| {
        for depth in [LARGE / 2, LARGE / 4, LARGE / 2] {
            let stack = with_stack(LARGE, || {
                let before = Teb::right();
                wide();
                deep(depth, &mut panics);
                let grown = Teb::right();
                on(&before);
                assert!(grown.limit < grown.base - depth);
                downcall(|| ());
                assert_eq!(Teb::right(), grown);
                deep(depth, &mut panics);
                before
            });
            assert!(stack.limit > stack.base - (1 << 20), "its memory was given back: {stack:x?}");
        }
    });
}

/// The committed private memory of this process, in bytes.
fn committed() -> usize {
    let (mut at, mut committed) = (0, 0);
    // SAFETY: all-zero is a valid value of this structure of numbers. The call writes one structure
    // of the size passed.
    unsafe {
        let mut pages: MEMORY_BASIC_INFORMATION = zeroed();
        while VirtualQuery(at as *const _, &mut pages, size_of_val(&pages)) != 0 {
            if pages.State == MEM_COMMIT && pages.Type == MEM_PRIVATE {
                committed += pages.RegionSize;
            }
            at = pages.BaseAddress as usize + pages.RegionSize;
        }
    }
    committed
}

/// The commit charge of this process according to the system, in bytes.
fn pagefile_usage() -> usize {
    let mut counters = MaybeUninit::<PROCESS_MEMORY_COUNTERS>::uninit();
    let size = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    // SAFETY: the call fills the structure, of the size passed.
    unsafe {
        assert_ne!(K32GetProcessMemoryInfo(GetCurrentProcess(), counters.as_mut_ptr(), size), 0);
        counters.assume_init().PagefileUsage
    }
}

#[test]
fn ten_thousand_parked_fibers_commit_little() {
    const NAME: &str = "ten_thousand_parked_fibers_commit_little";
    const PARKED: usize = 10_000;
    if part().is_none() {
        stderr_of_success(&child(NAME, "alone", &[]));
        return;
    }
    let _limit = time_limit(NAME);
    enter(|| wait(FIBERS.fiber(|| ()))).unwrap();
    let at_first = (committed(), pagefile_usage());
    for round in 0..3 {
        let park = || {
            let mut fiber = Box::pin(FIBERS.fiber(|| {
                let kept = black_box([1_u8; 4096]);
                yield_now();
                assert_eq!(kept[9], 1);
            }));
            assert!(poll(&mut fiber).is_pending());
            fiber
        };
        let parked: Vec<_> = (0..PARKED).map(|_| park()).collect();
        let each = (committed() - at_first.0) / PARKED;
        assert!(each <= 64 << 10, "round {round}: {each} bytes are committed for a parked fiber");
        let each = pagefile_usage().saturating_sub(at_first.1) / PARKED;
        assert!(each <= 64 << 10, "round {round}: {each} bytes are charged for a parked fiber");
        parked.into_iter().for_each(wait);
    }
}
