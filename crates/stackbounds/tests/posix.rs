//! POSIX's threads with the least stack or with a supplied one, and the stacks of signal handlers.
#![cfg(unix)]

mod whole;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use stackbounds::{Accuracy, current, stack_pointer, thread};
use whole::{QUERIED, assert_exact_and_usable_to_the_end};

/// Runs `f` on a pthread with the stack set by `attributes`.
fn on_pthread<F: FnOnce() + Send>(attributes: impl FnOnce(*mut libc::pthread_attr_t), f: F) {
    extern "C" fn start<F: FnOnce()>(f: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: `on_pthread` passes a pointer to its own `Some(f)` and waits for this thread, so
        // the pointer is valid and not shared.
        let f = unsafe { (*f.cast::<Option<F>>()).take() };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(f.unwrap())).is_err() {
            std::process::abort();
        }
        std::ptr::null_mut()
    }
    let mut f = Some(f);
    // SAFETY: the attributes are initialised before any use. `f` outlives the thread, which is
    // joined.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        assert_eq!(libc::pthread_attr_init(&mut attr), 0);
        attributes(&mut attr);
        let mut id = std::mem::zeroed();
        assert_eq!(libc::pthread_create(&mut id, &attr, start::<F>, (&raw mut f).cast()), 0);
        assert_eq!(libc::pthread_join(id, std::ptr::null_mut()), 0);
        libc::pthread_attr_destroy(&mut attr);
    }
}

fn map(size: usize) -> *mut u8 {
    let (rw, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, not at a fixed address, touches nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), size, rw, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

#[test]
fn the_smallest_thread_is_exact_to_its_last_byte() {
    // musl's 2 KiB are too small for the test itself.
    let least = libc::PTHREAD_STACK_MIN.max(16 << 10);
    // musl adds room for its thread-locals, in whole pages.
    let most = if cfg!(target_env = "musl") { least + 8192 } else { least };
    on_pthread(
        // SAFETY: `on_pthread` passes initialised attributes.
        |attr| unsafe { assert_eq!(libc::pthread_attr_setstacksize(attr, least), 0) },
        || {
            assert_exact_and_usable_to_the_end();
            assert!(!QUERIED || current().size() <= most && current().size() > least / 2);
        },
    );
}

#[test]
fn stacks_that_the_user_supplied_are_exact_one_above_the_other() {
    let size = 128 * 1024;
    let both = map(2 * size) as usize;
    for low in [both, both + size] {
        on_pthread(
            // SAFETY: `on_pthread` passes initialised attributes. The mapping outlives the thread.
            |attr| unsafe { assert_eq!(libc::pthread_attr_setstack(attr, low as *mut _, size), 0) },
            || {
                assert_exact_and_usable_to_the_end();
                assert!(!QUERIED || current().low() >= low && current().high() <= low + size);
            },
        );
    }
}

#[test]
fn a_signal_handler_on_its_own_stack_gets_an_estimate_and_asks_nothing() {
    static SEEN: [AtomicUsize; 3] = [const { AtomicUsize::new(usize::MAX) }; 3];
    extern "C" fn handler(_: libc::c_int) {
        let stack = current();
        SEEN[0].store(usize::from(stack.accuracy() == Accuracy::Exact), Relaxed);
        SEEN[1].store(usize::from(stack.contains(stack_pointer())), Relaxed);
        SEEN[2].store(usize::from(thread().is_some()), Relaxed);
    }
    let raise_on_own_thread = |asked_before: bool| {
        std::thread::spawn(move || {
            if asked_before {
                assert_eq!(thread().is_some(), QUERIED);
            }
            let size = 64 * 1024;
            let alt = libc::stack_t { ss_sp: map(size).cast(), ss_flags: 0, ss_size: size };
            // SAFETY: the alternate stack is mapped and never unmapped. The handler makes only
            // async-signal-safe calls: this is the claim under test.
            unsafe {
                assert_eq!(libc::sigaltstack(&alt, std::ptr::null_mut()), 0);
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_ONSTACK;
                assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
                libc::raise(libc::SIGUSR1);
            }
            // Back on the thread's stack, the bounds are exact again.
            assert_exact_and_usable_to_the_end();
        })
        .join()
        .unwrap();
        SEEN.each_ref().map(|seen| seen.swap(usize::MAX, Relaxed))
    };
    assert_eq!(raise_on_own_thread(false), [0, 1, 0]);
    assert_eq!(raise_on_own_thread(true), [0, 1, usize::from(QUERIED)]);
}
