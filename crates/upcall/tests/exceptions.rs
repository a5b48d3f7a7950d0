//! Faults on Windows: the report of each exception, Windows' own fibers, and the host's handlers.
#![cfg(windows)]

mod common;
#[path = "common/faults.rs"]
#[allow(dead_code, reason = "each test program uses some of it")]
mod faults;

use std::arch::asm;
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;

use common::sys::on_thread_of_c;
use common::{child, part, stderr_of_success};
use faults::DIES_OF_OVERFLOW;
use upcall::{downcall, enter, report};
use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, EXCEPTION_ILLEGAL_INSTRUCTION};
use windows_sys::Win32::Foundation::{GetLastError, INVALID_HANDLE_VALUE, SetLastError};
use windows_sys::Win32::System::Console::{STD_ERROR_HANDLE, SetStdHandle};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::Threading::{
    ConvertThreadToFiber, CreateFiber, GetCurrentThreadStackLimits, SetThreadStackGuarantee, SwitchToFiber,
};

/// `EXCEPTION_CONTINUE_EXECUTION` of the C headers.
const GO_ON: i32 = -1;

/// An exception without an effect on memory.
#[derive(Clone, Copy)]
enum Fault {
    Illegal,
    Privileged,
    Division,
    NoAddress,
}

fn raise(fault: Fault) {
    // SAFETY: none. The fault is the purpose of these tests.
    unsafe {
        match fault {
            Fault::Illegal => asm!("ud2"),
            Fault::Privileged => asm!("hlt"),
            Fault::Division => asm!(
                "div {zero}", zero = in(reg) 0_usize, inout("rax") 1_usize => _, inout("rdx") 0_usize => _
            ),
            Fault::NoAddress => {
                // Bits 48 to 63 of an address must be copies of bit 47.
                black_box(0x8000_0000_0000_0010_usize as *const u8).read_volatile();
            }
        }
    }
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[7] }
}

#[test]
fn each_exception_is_named() {
    const NAME: &str = "each_exception_is_named";
    let cases = [
        ("EXCEPTION_ILLEGAL_INSTRUCTION (", Fault::Illegal, 0xC000_001D_u32),
        ("EXCEPTION_PRIV_INSTRUCTION (", Fault::Privileged, 0xC000_0096),
        ("EXCEPTION_INT_DIVIDE_BY_ZERO (", Fault::Division, 0xC000_0094),
        ("EXCEPTION_ACCESS_VIOLATION (", Fault::NoAddress, 0xC000_0005),
    ];
    if let Some(part) = part() {
        faults::dies_quietly();
        report::install().unwrap();
        let (_, fault, _) = cases.iter().find(|(name, ..)| *name == part).unwrap();
        return enter(|| raise(*fault)).unwrap();
    }
    for (name, _, code) in cases {
        let output = child(NAME, name, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code as i32), "{said}");
        assert!(said.starts_with(&format!("upcall: {name}")), "{said}");
        assert!(said.contains(", at instruction 0x") && !said.contains("which touched"), "{said}");
        assert_eq!(said.matches(": exceptions::each_exception_is_named").count(), 1, "{said}");
    }
}

/// Runs `f` on a fiber of Windows' own, and never returns.
fn on_fiber(f: fn()) {
    unsafe extern "system" fn begins(f: *mut c_void) {
        // SAFETY: the parameter is the address of the caller's `f`, and the caller waits.
        unsafe { (*f.cast::<fn()>())() };
        std::process::exit(0);
    }
    // SAFETY: the thread becomes a fiber once. The new fiber gets the parameter that it expects,
    // and is switched to once.
    unsafe {
        ConvertThreadToFiber(ptr::null());
        SwitchToFiber(CreateFiber(1 << 20, Some(begins), (&raw const f).cast()));
    }
}

fn overflow() {
    faults::dies_quietly();
    // On an undescribed stack, the upcall alone would run on a pooled stack.
    enter(|| downcall(|| recurse(0))).unwrap();
}

fn overflow_registered() {
    let (mut low, mut high) = (0, 0);
    // SAFETY: the pointers are valid for writing. The range is the stack in use, which stays.
    let registration = unsafe {
        GetCurrentThreadStackLimits(&mut low, &mut high);
        stackbounds::register(low as *mut u8, high - low)
    };
    std::mem::forget(registration.unwrap());
    overflow();
}

#[test]
fn the_overflow_of_a_windows_fiber_is_reported() {
    const NAME: &str = "the_overflow_of_a_windows_fiber_is_reported";
    const CASES: [(&str, fn(), &str); 2] = [
        ("foreign", overflow, "upcall: EXCEPTION_STACK_OVERFLOW (a stack is used up) on thread "),
        ("registered", overflow_registered, ": a registered stack, "),
    ];
    if let Some(part) = part() {
        report::install().unwrap();
        let (_, f, _) = CASES.iter().find(|(name, ..)| *name == part).unwrap();
        return on_fiber(*f);
    }
    for (part, _, says) in CASES {
        for reports in ["faults", "overflows"] {
            let output = child(NAME, part, &[("UPCALL_REPORTS", reports)]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(faults::dies_of(output.status), DIES_OF_OVERFLOW, "{said}");
            assert_eq!(said.matches(says).count(), 1, "{said}");
            // Bounds tell how far up the calls of the stack may be.
            let calls = said.matches("upcall:   Rust → C, C runs on a registered stack").count();
            assert_eq!(calls, usize::from(part == "registered"), "{said}");
        }
    }
}

/// Called before upcall's handler was installed, so after it: checks the last error.
unsafe extern "system" fn next_handler(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system passes valid descriptions.
    let code = unsafe { (*(*exception).ExceptionRecord).ExceptionCode };
    // SAFETY: the function has no precondition.
    if code == EXCEPTION_ACCESS_VIOLATION && unsafe { GetLastError() } == 77 {
        std::process::exit(0);
    }
    EXCEPTION_CONTINUE_SEARCH
}

#[test]
fn the_host_s_handler_is_next_and_finds_its_last_error() {
    const NAME: &str = "the_host_s_handler_is_next_and_finds_its_last_error";
    if let Some(part) = part() {
        faults::dies_quietly();
        // SAFETY: the handler has the type that the system calls. Nothing else uses stderr.
        unsafe {
            AddVectoredExceptionHandler(1, Some(next_handler));
            if part == "without stderr" {
                SetStdHandle(STD_ERROR_HANDLE, INVALID_HANDLE_VALUE);
            }
        }
        report::install().unwrap();
        // SAFETY: the function has no precondition.
        unsafe { SetLastError(77) };
        return raise(Fault::NoAddress);
    }
    // Without stderr, the report's own writing fails.
    for (part, reports) in [("with stderr", 1), ("without stderr", 0)] {
        let said = stderr_of_success(&child(NAME, part, &[]));
        assert_eq!(said.matches("upcall: EXCEPTION_ACCESS_VIOLATION").count(), reports, "{said}");
    }
}

/// A host that lives with faults: continues after the illegal instruction.
unsafe extern "system" fn skip_illegal(exception: *mut EXCEPTION_POINTERS) -> i32 {
    const SIZE_OF_UD2: u64 = 2;
    // SAFETY: the system passes valid descriptions, and continues from the second.
    unsafe {
        if (*(*exception).ExceptionRecord).ExceptionCode != EXCEPTION_ILLEGAL_INSTRUCTION {
            return EXCEPTION_CONTINUE_SEARCH;
        }
        (*(*exception).ContextRecord).Rip += SIZE_OF_UD2;
    }
    GO_ON
}

#[test]
fn a_host_may_live_with_its_faults() {
    if let Some(part) = part() {
        // SAFETY: the handler has the type that the system calls.
        unsafe { AddVectoredExceptionHandler(0, Some(skip_illegal)) };
        report::install().unwrap();
        for _ in 0..part.parse().unwrap() {
            enter(|| downcall(|| raise(Fault::Illegal))).unwrap();
        }
        return;
    }
    let said = stderr_of_success(&child("a_host_may_live_with_its_faults", "20", &[]));
    assert_eq!(said.matches("upcall: EXCEPTION_ILLEGAL_INSTRUCTION").count(), 16, "{said}");
    assert_eq!(said.matches("the process goes on after faults").count(), 1, "{said}");
}

#[test]
fn threads_keep_room_for_handlers() {
    fn guarantee() -> u32 {
        let mut bytes = 0;
        // SAFETY: with 0, the call only returns the bytes that are set.
        unsafe { SetThreadStackGuarantee(&mut bytes) };
        bytes
    }
    unsafe extern "C" fn of_host(_: *mut c_void) -> u32 {
        assert!(guarantee() < 20 << 10);
        enter(|| ()).unwrap();
        guarantee()
    }
    if part().is_none() {
        let said = stderr_of_success(&child("threads_keep_room_for_handlers", "host", &[]));
        assert!(said.is_empty(), "{said}");
        return;
    }
    report::install().unwrap();
    assert_eq!(on_thread_of_c(of_host, ptr::null_mut()), 20 << 10);
}

#[test]
fn the_own_stack_is_known_though_its_guarantee_has_grown() {
    unsafe extern "C" fn of_host(_: *mut c_void) -> u32 {
        enter(|| report::install().unwrap()).unwrap();
        overflow();
        0
    }
    if part().is_some() {
        on_thread_of_c(of_host, ptr::null_mut());
        return;
    }
    let output = child("the_own_stack_is_known_though_its_guarantee_has_grown", "host", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(faults::dies_of(output.status), DIES_OF_OVERFLOW, "{said}");
    assert_eq!(said.matches(" (unnamed): the thread's own stack, ").count(), 1, "{said}");
}
