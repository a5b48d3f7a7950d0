//! Windows' threads and fibers: which stack is known, and how far it can be used.
#![cfg(windows)]

mod whole;

use core::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::{env, ptr, thread};

use stackbounds::{Accuracy, Registration, current, register, stack_pointer};
use whole::{QUERIED, assert_exact_and_usable_to_the_end, use_down_to};
use windows_sys::Win32::Foundation::{CloseHandle, EXCEPTION_STACK_OVERFLOW, WAIT_OBJECT_0};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_DECOMMIT, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_GUARD, PAGE_READWRITE,
    VirtualAlloc, VirtualFree, VirtualQuery,
};
use windows_sys::Win32::System::Threading::{
    ConvertFiberToThread, ConvertThreadToFiber, CreateFiberEx, CreateThread, DeleteFiber, ExitProcess,
    GetCurrentThreadStackLimits, INFINITE, SetThreadStackGuarantee, SwitchToFiber, WaitForSingleObject,
};

const PAGE: usize = 4096;

/// A closure, called once on another stack.
struct Call<'a> {
    call: &'a mut (dyn FnMut() + Send),
    /// The fiber that waits for the end of the call.
    back: *const c_void,
    result: thread::Result<()>,
}

impl<'a> Call<'a> {
    fn new(call: &'a mut (dyn FnMut() + Send), back: *const c_void) -> Self {
        Self { call, back, result: Ok(()) }
    }

    /// Makes the call. A panic may not leave the first frame of a stack.
    fn run(&mut self) {
        self.result = catch_unwind(AssertUnwindSafe(&mut self.call));
    }

    /// To be called on the first stack again, after the call: continues its panic.
    fn finish(self) {
        self.result.unwrap_or_else(|panic| resume_unwind(panic));
    }
}

/// Runs `f` on a thread of Windows', to which Rust gave no guarantee for overflow handlers.
fn on_bare_thread(size: usize, f: &mut (dyn FnMut() + Send)) {
    unsafe extern "system" fn start(call: *mut c_void) -> u32 {
        // SAFETY: `on_bare_thread` passes its own `Call` and waits for this thread.
        unsafe { (*call.cast::<Call>()).run() };
        0
    }
    const STACK_SIZE_PARAM_IS_A_RESERVATION: u32 = 0x10000;
    let mut call = Call::new(f, ptr::null());
    // SAFETY: `call` outlives the thread, which is waited for. The handle is closed once.
    unsafe {
        let argument = (&raw mut call).cast();
        let flags = STACK_SIZE_PARAM_IS_A_RESERVATION;
        let thread = CreateThread(ptr::null(), size, Some(start), argument, flags, ptr::null_mut());
        assert_eq!(WaitForSingleObject(thread, INFINITE), WAIT_OBJECT_0);
        CloseHandle(thread);
    }
    call.finish();
}

/// Runs `f` as the first fiber of a new thread, after `before`. `f` gets the fiber.
fn as_fiber(before: impl FnOnce() + Send, f: impl FnOnce(*const c_void) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            before();
            // SAFETY: the thread is no fiber yet, and becomes a thread again on itself.
            unsafe {
                let me = ConvertThreadToFiber(ptr::null());
                assert!(!me.is_null());
                f(me);
                assert_ne!(ConvertFiberToThread(), 0);
            }
        });
    });
}

/// Runs `f` on a new fiber, called from the fiber `me`. Then deletes the new one.
fn on_fiber(me: *const c_void, f: &mut (dyn FnMut() + Send)) {
    unsafe extern "system" fn start(call: *mut c_void) {
        // SAFETY: `on_fiber` passes its own `Call`, and waits on the fiber `back`.
        unsafe {
            let call = call.cast::<Call>();
            (*call).run();
            SwitchToFiber((*call).back);
        }
    }
    let mut call = Call::new(f, me);
    // SAFETY: `call` outlives the fiber, which is deleted once, after its last switch away.
    unsafe {
        let fiber = CreateFiberEx(0, 256 << 10, 0, Some(start), (&raw mut call).cast());
        assert!(!fiber.is_null());
        SwitchToFiber(fiber);
        DeleteFiber(fiber);
    }
    call.finish();
}

/// The reserved range of the stack in use, and the guarantee for overflow handlers.
fn reserved() -> (usize, usize, usize) {
    let (mut low, mut high, mut guaranteed) = (0, 0, 0);
    // SAFETY: the pointers are valid for writing. A guarantee of 0 bytes changes nothing.
    unsafe {
        GetCurrentThreadStackLimits(&mut low, &mut high);
        assert_ne!(SetThreadStackGuarantee(&mut guaranteed), 0);
    }
    (low, high, guaranteed as usize)
}

/// Makes the system commit the stack in use page by page from here on.
///
/// Windows does so on every stack. wine commits whole stacks: only the lowest page but one is a
/// guard, whatever the guarantee is.
fn commit_page_by_page() {
    let (low, ..) = reserved();
    // Some pages for the calls below.
    let guard = (stack_pointer() & !(PAGE - 1)) - 8 * PAGE;
    let mut info = MEMORY_BASIC_INFORMATION::default();
    // SAFETY: `info` is valid for writing, and has the size given. The other calls change pages of
    // the stack below all frames. Afterwards these pages are as Windows has them.
    unsafe {
        let at = (low + 2 * PAGE) as *const c_void;
        assert_ne!(VirtualQuery(at, &mut info, size_of_val(&info)), 0);
        if info.State == MEM_RESERVE {
            return;
        }
        assert_ne!(VirtualFree(low as *mut _, guard - low, MEM_DECOMMIT), 0);
        let guard = (guard - PAGE) as *const c_void;
        assert!(!VirtualAlloc(guard, PAGE, MEM_COMMIT, PAGE_READWRITE | PAGE_GUARD).is_null());
    }
}

/// The lowest address of the stack in use, without its pages for overflows.
fn usable_from() -> usize {
    let (low, _, guaranteed) = reserved();
    low + 2 * PAGE + guaranteed.max(2 * PAGE)
}

/// Registers the stack of the fiber in use.
fn register_fiber() -> Registration {
    register_range(usable_from(), reserved().1)
}

fn register_range(low: usize, high: usize) -> Registration {
    // SAFETY: the system commits the range when it is used. The tests drop the registration before
    // the fiber is deleted.
    unsafe { register(low as *mut u8, high - low) }.unwrap()
}

fn assert_estimated() {
    let stack = current();
    assert!(stack.accuracy() == Accuracy::Estimated && stack.contains(stack_pointer()), "{stack:x?}");
}

#[test]
fn a_thread_without_a_guarantee_is_exact_to_its_last_byte() {
    on_bare_thread(2 << 20, &mut || {
        assert_eq!(reserved().2, 0);
        commit_page_by_page();
        assert_exact_and_usable_to_the_end();
        assert!(!QUERIED || current().low() == usable_from());
    });
}

#[test]
fn a_guarantee_given_later_makes_the_stack_smaller() {
    #[inline(never)]
    fn deeper(by: usize) {
        let frame = std::hint::black_box([0_u8; 4096]);
        if by > 0 {
            deeper(by.saturating_sub(4096))
        } else {
            assert_exact_and_usable_to_the_end()
        }
        std::hint::black_box(frame);
    }
    if !QUERIED {
        return;
    }
    on_bare_thread(2 << 20, &mut || {
        commit_page_by_page();
        let before = current();
        let mut guarantee = 32 * PAGE as u32;
        // SAFETY: the pointer is valid for writing.
        assert_ne!(unsafe { SetThreadStackGuarantee(&mut guarantee) }, 0);
        deeper(512 << 10);
        assert_eq!(current().low(), usable_from());
        assert_eq!(current().low(), before.low() + 30 * PAGE);
    });
}

#[test]
fn a_thread_that_asked_before_it_became_a_fiber_knows_its_own_stack() {
    let asks = || assert_eq!(current().is_exact(), QUERIED);
    as_fiber(asks, |me| {
        let (own, bounds) = (stackbounds::thread(), current());
        assert_eq!((own.is_some(), bounds.is_exact()), (QUERIED, QUERIED));
        for _ in 0..3 {
            on_fiber(me, &mut || {
                assert_estimated();
                assert_eq!(stackbounds::thread(), own);
            });
            assert_eq!(current().is_exact(), QUERIED);
        }
        assert_exact_and_usable_to_the_end();
    });
}

#[test]
fn a_thread_that_first_asks_on_a_fiber_knows_its_own_stack() {
    let raises_guarantee = || {
        let mut guarantee = 32 * PAGE as u32;
        // SAFETY: the pointer is valid for writing.
        assert_ne!(unsafe { SetThreadStackGuarantee(&mut guarantee) }, 0);
    };
    as_fiber(raises_guarantee, |me| {
        let (_, high, _) = reserved();
        let own = || stackbounds::thread().map(|own| own.high());
        on_fiber(me, &mut || {
            assert_estimated();
            assert_eq!(own(), QUERIED.then_some(high));
        });
        assert_eq!(own(), QUERIED.then_some(high));
        assert_exact_and_usable_to_the_end();
        assert!(!QUERIED || current().low() == usable_from());
    });
}

#[test]
fn a_registered_fiber_is_exact_until_it_is_deleted() {
    let asks = || assert_eq!(current().is_exact(), QUERIED);
    as_fiber(asks, |me| {
        let mut first = 0;
        on_fiber(me, &mut || {
            assert_estimated();
            let registration = register_fiber();
            assert_eq!(current(), registration.bounds());
            commit_page_by_page();
            use_down_to(registration.bounds().low());
            first = reserved().0;
        });
        // Another fiber gets the same addresses, and inherits nothing.
        let mut again = false;
        for _ in 0..64 {
            on_fiber(me, &mut || {
                assert_estimated();
                again |= reserved().0 == first;
            });
        }
        assert!(again, "no fiber in 64 began at {first:#x}");
        assert_eq!(current().is_exact(), QUERIED);
    });
}

#[test]
fn a_thread_that_first_asks_on_a_registered_stack_asks_again() {
    as_fiber(
        || {},
        |me| {
            on_fiber(me, &mut || {
                // By another thread: this one asks for its own stack if it registers another.
                let registration = thread::scope(|scope| {
                    let (low, high) = (usable_from(), reserved().1);
                    scope.spawn(move || register_range(low, high)).join().unwrap()
                });
                assert_eq!(current(), registration.bounds());
                assert_eq!(stackbounds::thread(), None);
            });
            // SAFETY: the fiber is the thread's first, and no other one is left. The thread becomes
            // a fiber again.
            unsafe {
                assert_ne!(ConvertFiberToThread(), 0);
                assert_exact_and_usable_to_the_end();
                assert!(!ConvertThreadToFiber(ptr::null()).is_null());
            }
        },
    );
}

#[test]
fn a_stack_overflows_within_two_pages_below_its_bounds() {
    const NAME: &str = "a_stack_overflows_within_two_pages_below_its_bounds";
    const STACK: &str = "STACKBOUNDS_OVERFLOWS";
    const OVERFLOWED: u32 = 77;
    unsafe extern "system" fn handler(raised: *mut EXCEPTION_POINTERS) -> i32 {
        // SAFETY: the system passes valid pointers. Other exceptions go to the next handler.
        unsafe {
            if (*(*raised).ExceptionRecord).ExceptionCode == EXCEPTION_STACK_OVERFLOW {
                ExitProcess(OVERFLOWED);
            }
        }
        EXCEPTION_CONTINUE_SEARCH
    }
    fn overflow() {
        // SAFETY: the handler is a function of this program.
        assert!(!unsafe { AddVectoredExceptionHandler(1, Some(handler)) }.is_null());
        let stack = current();
        commit_page_by_page();
        use_down_to(if QUERIED { stack.low() } else { usable_from() } - 2 * PAGE);
    }
    fn overflow_fiber() {
        // SAFETY: the thread is no fiber. The process ends here.
        let me = unsafe { ConvertThreadToFiber(ptr::null()) } as usize;
        on_fiber(me as *const c_void, &mut || {
            let _registration = register_fiber();
            overflow();
        });
    }
    match env::var(STACK).as_deref() {
        Ok("a thread") => return overflow(),
        Ok("a fiber") => return overflow_fiber(),
        Ok(_) => return on_bare_thread(2 << 20, &mut overflow),
        Err(_) => {}
    }
    for stack in ["a thread", "a fiber", "a bare thread"] {
        let mut child = Command::new(env::current_exe().unwrap());
        let output = child.args(["--exact", NAME, "--nocapture"]).env(STACK, stack).output().unwrap();
        assert_eq!(output.status.code(), Some(OVERFLOWED as i32), "{stack}: {output:?}");
    }
}
