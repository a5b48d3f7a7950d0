//! Memory of stacks.
//!
//! The system grows a stack when one of its lowest committed pages, a guard, is touched: it commits
//! further ones below. For this, the TEB must have the bounds of the stack.

use std::mem::{MaybeUninit, zeroed};
use std::ptr;

use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_DECOMMIT, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_GUARD, PAGE_READWRITE,
    VirtualAlloc, VirtualFree, VirtualQuery,
};
use windows_sys::Win32::System::SystemInformation::GetSystemInfo;
use windows_sys::Win32::System::Threading::SetThreadStackGuarantee;

/// How the process locks new memory: it never does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locks {
    Nothing,
}

/// Bytes of a stack committed at first, above its guard. They hold the header of a stack and the
/// first frames.
const COMMITTED_FIRST: usize = 16 << 10;

/// The bytes below a stack into which the system moves its guard when the stack is full. Our own
/// guard, which is larger, begins with them. So all of the stack can be used.
///
/// They have room for a page, for the guard, and for a handler of 36 KiB. Rust's standard library
/// asks for 20.
pub const BELOW_STACK: usize = 48 << 10;

/// The guard at the low end of the committed part of a stack, in pages, without those for the
/// handler of an overflow.
const GUARD_PAGES: usize = 2;

/// The size of a page in bytes.
pub fn page_size() -> usize {
    let mut info = MaybeUninit::uninit();
    // SAFETY: the call fills the structure.
    unsafe {
        GetSystemInfo(info.as_mut_ptr());
        info.assume_init().dwPageSize as usize
    }
}

/// Reserves `size` bytes of address space at a multiple of `align`, a power of two.
///
/// Part of a reservation cannot be released, so the bytes before and after stay reserved.
pub fn reserve(size: usize, align: usize) -> Option<(*mut u8, Locks)> {
    let whole = size.checked_add(align)?;
    // SAFETY: the system chooses an unused range.
    let at = unsafe { VirtualAlloc(ptr::null(), whole, MEM_RESERVE, PAGE_READWRITE) };
    let before = (at as usize).wrapping_neg() & (align - 1);
    (!at.is_null()).then(|| (at.wrapping_byte_add(before).cast(), Locks::Nothing))
}

/// Commits memory to `low..low + size`, part of a result of `reserve`. Returns whether there is so
/// much.
pub fn commit(low: *mut u8, size: usize) -> bool {
    commit_as(low, size, PAGE_READWRITE)
}

fn commit_as(low: *mut u8, size: usize, protection: u32) -> bool {
    // SAFETY: the callers own the range, and nothing is kept in those of its pages that are not
    // committed. Others keep their contents.
    unsafe { !VirtualAlloc(low.cast(), size, MEM_COMMIT, protection).is_null() }
}

/// Makes `low..low + size`, part of a result of `reserve`, a stack: commits memory to its high end,
/// above a guard. Returns whether there is so much.
///
/// The guard has room for the handler of an overflow, as on the calling thread's own stack. It may
/// come to lie in the [`BELOW_STACK`] bytes below the stack.
pub fn commit_stack(low: *mut u8, size: usize) -> bool {
    let page = page_size();
    let high = low.wrapping_add(size);
    let mut for_handler = 0;
    // SAFETY: with 0, the call only returns the bytes that are set.
    unsafe { SetThreadStackGuarantee(&mut for_handler) };
    let guard = GUARD_PAGES * page + (for_handler as usize).next_multiple_of(page);
    let first = (size / 2).min(COMMITTED_FIRST);
    let guard = guard.min(size - first);
    commit(high.wrapping_sub(first), first)
        && commit_as(high.wrapping_sub(first + guard), guard, PAGE_READWRITE | PAGE_GUARD)
}

/// The lowest committed address of the stack `low..high`, above its guard.
pub fn lowest_committed(low: usize, high: usize) -> usize {
    let mut at = low - BELOW_STACK;
    while at < high {
        // SAFETY: all-zero is a valid value of this structure of numbers.
        let mut pages: MEMORY_BASIC_INFORMATION = unsafe { zeroed() };
        // SAFETY: the call writes one structure of the size given.
        if unsafe { VirtualQuery(at as *const _, &mut pages, size_of::<MEMORY_BASIC_INFORMATION>()) } == 0 {
            break;
        }
        if pages.State == MEM_COMMIT && pages.Protect & PAGE_GUARD == 0 {
            return at;
        }
        at = pages.BaseAddress as usize + pages.RegionSize;
    }
    high
}

/// Does nothing: no memory is locked here.
pub fn lock(_how: Locks, _low: *mut u8, _size: usize) {}

/// Makes `low..low + size` fault when touched. Returns whether it succeeded.
///
/// # Safety
/// The range is whole pages of memory owned by the caller, and nothing is kept in it, now or later.
pub unsafe fn guard(low: *mut u8, size: usize) -> bool {
    // SAFETY: the caller guarantees that nothing is kept in the range. It stays reserved.
    unsafe { VirtualFree(low.cast(), size, MEM_DECOMMIT) != 0 }
}

/// Always `false`: there is no other way than `guard`.
///
/// # Safety
/// As for [`guard`].
pub unsafe fn guard_by_advice(_low: *mut u8, _size: usize) -> bool {
    false
}

/// Returns the memory of the stack `low..low + size` to the system, except for its highest page.
/// The range stays reserved.
///
/// # Safety
/// The range was passed to `commit_stack`, and its contents are not needed any more.
pub unsafe fn give_back(_locks: Locks, low: *mut u8, size: usize) {
    let below = low.wrapping_sub(BELOW_STACK);
    // SAFETY: the caller guarantees that the contents are not needed. Below is a guard.
    unsafe { VirtualFree(below.cast(), BELOW_STACK + size - page_size(), MEM_DECOMMIT) };
}
