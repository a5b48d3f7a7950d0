//! How faults of this system are named, and how they end a process.

pub use system::*;

/// POSIX: faults are signals.
#[cfg(unix)]
mod system {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    pub const ACCESS: &str = "upcall: SIGSEGV (invalid";
    pub const ABORT: Option<&str> = Some("upcall: SIGABRT (abort)");
    pub const DIES_OF_ACCESS: Option<i32> = Some(libc::SIGSEGV);
    pub const DIES_OF_ABORT: Option<i32> = Some(libc::SIGABRT);
    pub const DIES_OF_OVERFLOW: Option<i32> = Some(libc::SIGSEGV);
    /// std aborts.
    pub const DIES_OF_OWN_OVERFLOW: Option<i32> = Some(libc::SIGABRT);
    /// std knows its threads' stacks from others.
    pub const STD_KNOWS: bool = true;

    pub fn dies_of(status: ExitStatus) -> Option<i32> {
        status.signal()
    }

    /// Does nothing here.
    pub fn dies_quietly() {}
}

/// Windows: faults are exceptions, and their codes are exit codes.
#[cfg(windows)]
mod system {
    use std::process::ExitStatus;

    use windows_sys::Win32::System::Diagnostics::Debug::{
        EXCEPTION_EXECUTE_HANDLER, EXCEPTION_POINTERS, SetUnhandledExceptionFilter,
    };
    use windows_sys::Win32::System::Memory::{PAGE_GUARD, PAGE_READWRITE, VirtualProtect};
    use windows_sys::Win32::System::Threading::{
        GetCurrentProcess, GetCurrentThreadStackLimits, SetThreadStackGuarantee, TerminateProcess,
    };

    pub const ACCESS: &str = "upcall: EXCEPTION_ACCESS_VIOLATION (invalid";
    /// A fail-fast exception has no handler.
    pub const ABORT: Option<&str> = None;
    pub const DIES_OF_ACCESS: Option<i32> = Some(0xC000_0005_u32 as i32);
    pub const DIES_OF_ABORT: Option<i32> = Some(0xC000_0409_u32 as i32);
    pub const DIES_OF_OVERFLOW: Option<i32> = Some(0xC000_00FD_u32 as i32);
    pub const DIES_OF_OWN_OVERFLOW: Option<i32> = DIES_OF_OVERFLOW;
    /// std takes any overflow for one of the thread's stack.
    pub const STD_KNOWS: bool = false;

    pub fn dies_of(status: ExitStatus) -> Option<i32> {
        status.code()
    }

    /// Has faults of the calling thread end the process without a debugger or a dialog.
    ///
    /// For overflows, it makes the guard of the stack in use as large as the thread's guarantee. In
    /// wine, a guard is a single page, so handlers have no room. In Windows, the call fails: the
    /// low end of a stack is only reserved, and the guard is large enough when it gets there.
    pub fn dies_quietly() {
        // On a fiber, wine would end the thread alone.
        unsafe extern "system" fn ends(exception: *const EXCEPTION_POINTERS) -> i32 {
            // SAFETY: the system passes a valid description.
            unsafe {
                let code = (*(*exception).ExceptionRecord).ExceptionCode;
                TerminateProcess(GetCurrentProcess(), code as u32);
            }
            EXCEPTION_EXECUTE_HANDLER
        }
        const PAGE: usize = 4096;
        let (mut low, mut high, mut guarantee, mut before) = (0, 0, 0, 0);
        // SAFETY: the pointers are valid for writing, and the filter accepts any exception. The
        // range is the lowest part of the stack in use, with nothing in it.
        unsafe {
            SetUnhandledExceptionFilter(Some(ends));
            SetThreadStackGuarantee(&mut guarantee);
            GetCurrentThreadStackLimits(&mut low, &mut high);
            let guard = (low + PAGE) as *const _;
            VirtualProtect(guard, guarantee as usize, PAGE_READWRITE | PAGE_GUARD, &mut before);
        }
    }
}
