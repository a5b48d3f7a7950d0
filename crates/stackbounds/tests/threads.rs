//! Threads of Rust's, and registered stacks.

mod whole;

use stackbounds::{Accuracy, current, register};
use whole::{QUERIED, assert_exact_and_usable_to_the_end};

/// Memory for a stack. Never freed.
fn memory(size: usize) -> *mut u8 {
    vec![0; size].leak().as_mut_ptr()
}

#[test]
fn threads_are_exact_to_their_last_byte() {
    for size in [1 << 20, 2 << 20, 8 << 20] {
        let thread = std::thread::Builder::new().stack_size(size).spawn(|| {
            assert_exact_and_usable_to_the_end();
            current().size()
        });
        let usable = thread.unwrap().join().unwrap();
        // Guards and reserves are not stack; the C library's data above the first frame may be. And
        // it may give a thread the stack of an earlier one, up to four times as large.
        assert!(!QUERIED || (size - (48 << 10)..=4 * size).contains(&usable), "{usable} of {size} bytes");
    }
}

#[test]
fn a_thread_with_a_registered_stack_of_its_own_keeps_its_own_bounds() {
    let own = current();
    let memory = memory(64 * 1024);
    // SAFETY: the memory is writable and never freed.
    let registration = unsafe { register(memory, 64 * 1024) }.unwrap();
    assert_eq!(current().accuracy(), own.accuracy());
    let inside = memory as usize + 1000;
    assert_eq!(stackbounds::at(inside), registration.bounds());
    assert_eq!(current().accuracy(), own.accuracy());
    drop(registration);
    assert_eq!(stackbounds::at(inside).accuracy(), Accuracy::Estimated);
}

#[test]
fn a_registration_on_one_thread_is_seen_on_another_that_had_looked_before() {
    let memory = memory(64 * 1024) as usize;
    let (to, from) = (&std::sync::Barrier::new(2), &std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(stackbounds::at(memory).accuracy(), Accuracy::Estimated);
            to.wait();
            from.wait();
            assert_eq!(stackbounds::at(memory).low(), memory);
        });
        to.wait();
        // SAFETY: the memory is writable and never freed.
        let registration = unsafe { register(memory as *mut u8, 64 * 1024) }.unwrap();
        from.wait();
        std::mem::forget(registration);
    });
}

#[test]
fn bad_ranges_are_refused_with_the_range_that_is_in_the_way() {
    let memory = memory(64 * 1024);
    let message = |low: *mut u8, size| {
        // SAFETY: every call here is refused, so no stack is described.
        unsafe { register(low, size) }.expect_err("refused").to_string()
    };
    assert!(message(std::ptr::null_mut(), 4096).contains("low end is null"));
    assert!(message(memory, 0).contains("is empty"));
    assert!(message(memory, usize::MAX).contains("past the end of the address space"));
    // SAFETY: the memory is writable and never freed.
    let registration = unsafe { register(memory, 64 * 1024) }.unwrap();
    let range = format!("{:#x}..{:#x}", memory as usize, memory as usize + 64 * 1024);
    assert!(message(memory, 64 * 1024).contains(&format!("{range} is already registered")));
    assert!(message(memory.wrapping_add(64), 64).contains(&format!("overlaps the registered stack {range}")));
    let mut local = [0u8; 64];
    if QUERIED {
        assert!(message(local.as_mut_ptr(), 64).contains("calling thread's own"));
    }
    drop(registration);
    // SAFETY: the memory is writable and never freed. A refused range leaves no trace.
    drop(unsafe { register(memory, 64 * 1024) }.unwrap());
}
