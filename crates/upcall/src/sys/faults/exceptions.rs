//! Windows: a vectored handler of exceptions, called before the frames' handlers.
//!
//! The handler runs on the stack of the fault, also if this one has overflowed: the system keeps
//! some of a stack for handlers. The report itself runs on a stack of its own. Afterwards the
//! search for a handler continues: the host's handlers follow, and without one the process dies of
//! the fault.
//!
//! Guard pages are no faults. The system takes those of stacks for its own purposes, and all others
//! are the host's affair. No handler sees a fail-fast exception (`abort`, a damaged stack).

use std::io;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, EXCEPTION_DATATYPE_MISALIGNMENT, EXCEPTION_FLT_DENORMAL_OPERAND,
    EXCEPTION_FLT_DIVIDE_BY_ZERO, EXCEPTION_FLT_INEXACT_RESULT, EXCEPTION_FLT_INVALID_OPERATION,
    EXCEPTION_FLT_OVERFLOW, EXCEPTION_FLT_STACK_CHECK, EXCEPTION_FLT_UNDERFLOW,
    EXCEPTION_ILLEGAL_INSTRUCTION, EXCEPTION_IN_PAGE_ERROR, EXCEPTION_INT_DIVIDE_BY_ZERO,
    EXCEPTION_INT_OVERFLOW, EXCEPTION_PRIV_INSTRUCTION, EXCEPTION_STACK_OVERFLOW, GetLastError, NTSTATUS,
    STATUS_FLOAT_MULTIPLE_FAULTS, STATUS_FLOAT_MULTIPLE_TRAPS, SetLastError,
};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS, EXCEPTION_RECORD,
};
use windows_sys::Win32::System::Threading::SetThreadStackGuarantee;

use super::Raised;

/// The report, set before the handler is installed, and whether it is of overflows alone.
static REPORT: OnceLock<(bool, fn(&Raised))> = OnceLock::new();

/// Has `report` called at each fault, or only at those that may be stack overflows.
///
/// An error means that there is no memory for a handler.
pub(crate) fn install(only_overflows: bool, report: fn(&Raised)) -> io::Result<()> {
    REPORT.get_or_init(|| (only_overflows, report));
    // SAFETY: the handler has the type that the system calls, and its code is never unloaded: a
    // constructor pins the library.
    let handler = unsafe { AddVectoredExceptionHandler(FIRST, Some(on_exception)) };
    if handler.is_null() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
}

/// Before all handlers installed so far.
const FIRST: u32 = 1;

/// Bytes of a stack kept for the handlers of its overflow, as by Rust's standard library for its
/// threads.
///
/// They hold the processor's registers, the frames of the system's search for a handler, and those
/// of the handlers up to the switch to the report's stack.
const FOR_HANDLERS: u32 = 20 << 10;

/// Has the system keep room for handlers of an overflow, on the calling thread's stacks.
///
/// It keeps more if the host has asked for more. If the system refuses, the thread's stack is tiny,
/// and an overflow ends the process without a report.
pub(crate) fn keep_room() {
    let mut room = 0;
    // SAFETY: the number is valid for reading and writing. The system replaces 0 by the number of
    // bytes kept so far, and changes nothing.
    unsafe { SetThreadStackGuarantee(&mut room) };
    if room < FOR_HANDLERS {
        room = FOR_HANDLERS;
        // SAFETY: as above; the system now keeps more.
        unsafe { SetThreadStackGuarantee(&mut room) };
    }
}

/// The name and meaning of an exception that is a fault.
fn meaning(code: NTSTATUS) -> Option<&'static str> {
    Some(match code {
        EXCEPTION_STACK_OVERFLOW => "EXCEPTION_STACK_OVERFLOW (a stack is used up)",
        EXCEPTION_ACCESS_VIOLATION => "EXCEPTION_ACCESS_VIOLATION (invalid memory access)",
        EXCEPTION_IN_PAGE_ERROR => "EXCEPTION_IN_PAGE_ERROR (memory that is not there)",
        EXCEPTION_DATATYPE_MISALIGNMENT => "EXCEPTION_DATATYPE_MISALIGNMENT (a misaligned address)",
        EXCEPTION_ILLEGAL_INSTRUCTION => "EXCEPTION_ILLEGAL_INSTRUCTION (an illegal instruction)",
        EXCEPTION_PRIV_INSTRUCTION => "EXCEPTION_PRIV_INSTRUCTION (an instruction of the system's)",
        EXCEPTION_INT_DIVIDE_BY_ZERO => "EXCEPTION_INT_DIVIDE_BY_ZERO (an arithmetic error)",
        EXCEPTION_INT_OVERFLOW => "EXCEPTION_INT_OVERFLOW (an arithmetic error)",
        EXCEPTION_FLT_DENORMAL_OPERAND
        | EXCEPTION_FLT_DIVIDE_BY_ZERO
        | EXCEPTION_FLT_INEXACT_RESULT
        | EXCEPTION_FLT_INVALID_OPERATION
        | EXCEPTION_FLT_OVERFLOW
        | EXCEPTION_FLT_STACK_CHECK
        | EXCEPTION_FLT_UNDERFLOW
        | STATUS_FLOAT_MULTIPLE_FAULTS
        | STATUS_FLOAT_MULTIPLE_TRAPS => "an exception of floating-point arithmetic",
        _ => return None,
    })
}

/// The address of the invalid access, if the exception is one and the system tells the address.
fn accessed(exception: &EXCEPTION_RECORD) -> Option<usize> {
    /// The system's answer for accesses without a known address, such as non-canonical ones.
    const UNKNOWN: usize = usize::MAX;
    let is_access = matches!(
        exception.ExceptionCode,
        EXCEPTION_STACK_OVERFLOW | EXCEPTION_ACCESS_VIOLATION | EXCEPTION_IN_PAGE_ERROR
    );
    // The first number is the kind of access.
    let address = exception.ExceptionInformation[1];
    (is_access && exception.NumberParameters >= 2 && address != UNKNOWN).then_some(address)
}

/// The handler: reports a fault, and leaves it to the next handler.
///
/// # Safety
/// `exception` points to valid descriptions of an exception of the calling thread.
unsafe extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the caller guarantees the descriptions.
    let (exception, context) = unsafe { (&*(*exception).ExceptionRecord, &*(*exception).ContextRecord) };
    if let (Some(what), Some((only_overflows, report))) = (meaning(exception.ExceptionCode), REPORT.get()) {
        let overflows = exception.ExceptionCode == EXCEPTION_STACK_OVERFLOW;
        let address = accessed(exception);
        if !only_overflows || overflows || address.is_some() {
            // SAFETY: neither function has a precondition. The next handler finds the error of the
            // interrupted code.
            let error = unsafe { GetLastError() };
            let (code, sp) = (Some(context.Rip as usize), Some(context.Rsp as usize));
            report(&Raised { what, overflows, address, code, sp });
            // SAFETY: as above.
            unsafe { SetLastError(error) };
        }
    }
    EXCEPTION_CONTINUE_SEARCH
}
