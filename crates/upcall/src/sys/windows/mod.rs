//! Windows, on x86-64.
//!
//! Wherever this differs from Unix: memory is reserved first and committed later; the system grows
//! stacks, and keeps the bounds of the one in use in the TEB (`isa::switch`); there are no signals,
//! and no forks.

mod memory;

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem::{MaybeUninit, transmute};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use windows_sys::Wdk::System::Threading::{NtQueryInformationThread, ThreadNameInformation};
use windows_sys::Win32::Foundation::{LocalFree, UNICODE_STRING};
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_PIN, GetModuleHandleExW,
};
use windows_sys::Win32::System::SystemServices::DLL_THREAD_DETACH;
use windows_sys::Win32::System::Threading::{
    GetCurrentThread, GetCurrentThreadId, GetThreadDescription, OpenThread, Sleep, SwitchToThread,
    THREAD_QUERY_LIMITED_INFORMATION,
};

pub use memory::{
    BELOW_STACK, Locks, commit, commit_stack, give_back, guard, guard_by_advice, lock, lowest_committed,
    page_size, reserve,
};

/// Lets other threads run. After 100 rounds, threads of lower priority run, too.
///
/// Needs next to no stack.
pub fn wait_a_little(round: u32) {
    // SAFETY: neither function has a precondition.
    unsafe {
        if round < 100 {
            SwitchToThread();
        } else {
            Sleep(1);
        }
    }
}

/// Pins the module that contains `address`: `FreeLibrary` has no effect on it from now on.
pub fn pin(address: *const c_void) {
    let mut module = ptr::null_mut();
    let how = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN;
    // SAFETY: with this flag, the name is any address in the module. `module` is writable.
    unsafe { GetModuleHandleExW(how, address.cast(), &mut module) };
}

/// The calling thread's number, as debuggers show it.
pub fn os_thread_id() -> usize {
    // SAFETY: the function has no precondition.
    unsafe { GetCurrentThreadId() as usize }
}

/// The name of the live thread with the number `id`, if it has one.
pub fn thread_name(id: usize) -> Option<String> {
    // SAFETY: the function takes no pointers.
    let thread = unsafe { OpenThread(THREAD_QUERY_LIMITED_INFORMATION, 0, id as u32) };
    if thread.is_null() {
        return None;
    }
    // SAFETY: the handle is new, so nobody else owns it.
    let thread = unsafe { OwnedHandle::from_raw_handle(thread) };
    let mut name = ptr::null_mut();
    // SAFETY: the handle is a thread's, and `name` is writable.
    if unsafe { GetThreadDescription(thread.as_raw_handle(), &mut name) } < 0 || name.is_null() {
        return None;
    }
    let mut length = 0;
    // SAFETY: the system gave a string that ends with 0, and leaves it to us. It is freed once,
    // after its last use.
    let text = unsafe {
        while *name.add(length) != 0 {
            length += 1;
        }
        let text = String::from_utf16_lossy(std::slice::from_raw_parts(name, length));
        LocalFree(name.cast());
        text
    };
    (!text.is_empty()).then_some(text)
}

thread_local! {
    /// The value of `call_at_exit`.
    static AT_EXIT: Cell<*const c_void> = const { Cell::new(ptr::null()) };

    /// Whether the loader has reported the thread's end. Destructors of the host may still run.
    static HAS_ENDED: Cell<bool> = const { Cell::new(false) };
}

/// The function of `call_at_exit`, or null.
static CALLED_AT_EXIT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Has the loader call `on_thread_event` when a thread begins or ends.
///
/// The standard library has the destructors of thread-locals called in the same way. The sections
/// are called in the order of their names, and that of the standard library comes first.
#[used]
#[unsafe(link_section = ".CRT$XLC")]
static ON_THREAD_EVENT: unsafe extern "system" fn(*mut c_void, u32, *mut c_void) = on_thread_event;

/// Calls the function of `call_at_exit` when a thread ends, with the loader's lock held.
///
/// When the process ends, nothing is called: its other threads have been killed, wherever they
/// were.
///
/// # Safety
/// For the loader alone.
unsafe extern "system" fn on_thread_event(_module: *mut c_void, reason: u32, _reserved: *mut c_void) {
    if reason != DLL_THREAD_DETACH {
        return;
    }
    HAS_ENDED.set(true);
    let value = AT_EXIT.replace(ptr::null());
    let called = CALLED_AT_EXIT.load(Acquire);
    if !value.is_null() && !called.is_null() {
        // SAFETY: only `call_at_exit` stores the function, and it stores one of this type.
        unsafe { transmute::<*mut (), extern "C" fn(*mut c_void)>(called)(value.cast_mut()) };
    }
}

/// Has `f(value)` called when the calling thread exits. Returns whether this is possible.
///
/// It is not after the loader's report.
pub fn call_at_exit(value: *const c_void, f: extern "C" fn(*mut c_void)) -> bool {
    // From a static library, a linker takes only the parts to which something else refers.
    std::hint::black_box(&ON_THREAD_EVENT);
    if HAS_ENDED.get() {
        return false;
    }
    CALLED_AT_EXIT.store(f as *mut (), Release);
    AT_EXIT.set(value);
    true
}

/// The value of the thread's last `call_at_exit`, or null.
pub fn exit_value() -> *const c_void {
    AT_EXIT.get()
}

/// There are no signals.
#[derive(Clone, Copy)]
pub struct Mask;

pub fn asynchronous() -> Mask {
    Mask
}

#[cfg(feature = "runtime")]
pub fn mask() -> Mask {
    Mask
}

#[inline(always)]
pub fn set_mask(_mask: &Mask) -> Mask {
    Mask
}

/// Always `false`: a write to a closed pipe or socket is an error here.
pub fn sigpipe_is_pending() -> bool {
    false
}

/// Always `false`: there is no such signal.
pub fn block_sigpipe() -> bool {
    false
}

pub fn unblock_sigpipe() {}

pub fn take_sigpipe() {}

/// Always `false`: an exception's handlers run on the stack in use.
pub fn lacks_alternate_stack() -> io::Result<bool> {
    Ok(false)
}

/// Always an error: there are none.
pub fn set_alternate_stack(_low: usize, _size: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Always `false`: there are none.
pub fn remove_alternate_stack(_low: usize, _size: usize) -> bool {
    false
}

/// Threads have no numbers of use for [`is_blocked`] here.
#[cfg(feature = "runtime")]
pub fn thread_number() -> i32 {
    0
}

/// Always `true`: nothing is known.
#[cfg(feature = "runtime")]
pub fn is_blocked(_thread: i32) -> bool {
    true
}

pub const STDERR: c_int = 2;

/// Writes all bytes to a descriptor of the C library.
///
/// Stderr is the process's own, whichever C libraries it has.
///
/// # Safety
/// If the descriptor is open, the caller may write to it.
pub unsafe fn write_all(descriptor: c_int, mut remaining: &[u8]) -> io::Result<()> {
    while !remaining.is_empty() {
        let size = c_uint::try_from(remaining.len()).unwrap_or(c_uint::MAX);
        let mut written = 0;
        if descriptor == STDERR {
            // SAFETY: `remaining` is a slice, readable for its length, and `written` is writable.
            // An invalid handle is an error.
            let done = unsafe {
                let stderr = GetStdHandle(STD_ERROR_HANDLE);
                WriteFile(stderr, remaining.as_ptr(), size, &mut written, ptr::null_mut())
            };
            if done == 0 {
                return Err(io::Error::last_os_error());
            }
        } else {
            // SAFETY: `remaining` is a slice, readable for its length. The caller may write there.
            let done = unsafe { libc::write(descriptor, remaining.as_ptr().cast(), size) };
            written = done.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        }
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        remaining = &remaining[written as usize..];
    }
    Ok(())
}

/// The calling thread's name, read into `buffer`, as far as there is room.
///
/// It asks the kernel: `GetThreadDescription` would allocate.
pub fn own_thread_name(buffer: &mut [u8; 16]) -> Option<&str> {
    /// The answer of the kernel, with the text that it refers to. Longer names are an error.
    #[repr(C)]
    struct Name {
        string: UNICODE_STRING,
        text: [u16; 256],
    }
    let mut name = MaybeUninit::<Name>::zeroed();
    let size = size_of::<Name>() as u32;
    // SAFETY: the kernel writes to `name`, which has the size given. All-zero is a valid `Name`.
    // The string is a part of `text`, or empty.
    let text = unsafe {
        let at = name.as_mut_ptr();
        if NtQueryInformationThread(
            GetCurrentThread(),
            ThreadNameInformation,
            at.cast(),
            size,
            ptr::null_mut(),
        ) < 0
        {
            return None;
        }
        let string = &(*at).string;
        if string.Length == 0 {
            return None;
        }
        std::slice::from_raw_parts(string.Buffer, usize::from(string.Length) / 2)
    };
    let mut length = 0;
    for letter in char::decode_utf16(text.iter().copied()) {
        let letter = letter.unwrap_or(char::REPLACEMENT_CHARACTER);
        let Some(room) = buffer.get_mut(length..length + letter.len_utf8()) else { break };
        length += letter.encode_utf8(room).len();
    }
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Always `None`: not available on this system.
pub fn lowest_resident(_low: usize, _high: usize) -> Option<usize> {
    None
}

/// The number of bytes below the calling thread's own stack with probably no other mapping.
pub fn reach_below_own_stack() -> usize {
    super::REACH
}
