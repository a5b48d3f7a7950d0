//! Memory for C: strings and arrays that C owns, and frees by one function of the library.
//!
//! Rule: **only what the table has is freed.** So a pointer from elsewhere, or one freed before, is
//! an error. Nothing is read through a pointer from C.

use std::alloc::{Layout, dealloc};
use std::collections::BTreeMap;
use std::ffi::{CString, NulError, c_char};
use std::mem::MaybeUninit;
use std::ptr;

use crate::sync::{self, Lock, Word, in_own_code};

/// The memory that C owns: each address, with the layout to free it by.
static OWNED_BY_C: Lock<BTreeMap<usize, Layout>> = Lock::new(BTreeMap::new());

/// The lock of the table, for forks.
pub(crate) fn lock_word() -> &'static Word {
    OWNED_BY_C.word()
}

/// Gives a string to C, as a C string.
///
/// C owns it from then on, and frees it by the library's `memory_free`. This function comes from
/// [`c_api!`](crate::c_api): for the prefix `geo`, it is `geo_memory_free`. C must not call its own
/// `free`, and may change the string up to the 0 at its end.
///
/// ```
/// use std::ffi::{CStr, c_char, c_int};
///
/// /// The number in words, to be freed by `geo_memory_free`; null on failure.
/// #[upcall::export(on_error = std::ptr::null_mut())]
/// #[unsafe(no_mangle)]
/// pub extern "C" fn geo_describe(number: c_int) -> *mut c_char {
///     Ok(upcall::into_c_str(format!("the number {number}"))?)
/// }
///
/// let text = geo_describe(7);
/// // SAFETY: the function gave a C string, and nobody uses it after it is freed.
/// unsafe {
///     assert_eq!(CStr::from_ptr(text), c"the number 7");
///     assert_eq!(upcall::c::memory_free(text.cast()), 0);
/// }
/// ```
///
/// # Errors
/// If the string has a 0 byte in it: for C, it would end there.
///
/// # Panics
/// If an allocator calls this from inside an allocation of upcall's.
pub fn into_c_str(text: impl Into<String>) -> Result<*mut c_char, NulError> {
    let text = CString::new(text.into())?;
    let layout = Layout::for_value(text.to_bytes_with_nul());
    let pointer = text.into_raw();
    give(pointer.cast(), layout);
    Ok(pointer)
}

/// Gives an array to C. Its length goes to `len`, its first element is the result.
///
/// C owns the array from then on, and frees it by the library's `memory_free`. This function comes
/// from [`c_api!`](crate::c_api): for the prefix `geo`, it is `geo_memory_free`. C must not call
/// its own `free`, and may change the elements. An empty array is memory too, and is not null.
///
/// ```
/// use upcall::arg;
///
/// /// The squares below `limit`, to be freed by `geo_memory_free`. Their number goes to `len`.
/// ///
/// /// # Safety
/// /// `len` is null, or can be written.
/// #[upcall::export(on_error = std::ptr::null_mut())]
/// #[unsafe(no_mangle)]
/// pub unsafe extern "C" fn geo_squares(limit: u64, len: *mut usize) -> *mut u64 {
///     // SAFETY: the caller's promise.
///     let len = unsafe { arg::out(len) }?;
///     let squares = (1..).map(|n| n * n).take_while(|square| *square < limit).collect();
///     Ok(upcall::into_c_slice(squares, len))
/// }
///
/// let mut len = 0;
/// // SAFETY: `len` can be written, and nobody uses the array after it is freed.
/// unsafe {
///     let squares = geo_squares(50, &mut len);
///     assert_eq!(std::slice::from_raw_parts(squares, len), [1, 4, 9, 16, 25, 36, 49]);
///     assert_eq!(upcall::c::memory_free(squares.cast()), 0);
/// }
/// ```
///
/// Elements have no destructor (`T: Copy`), since freeing drops none.
///
/// # Panics
/// If an allocator calls this from inside an allocation of upcall's.
pub fn into_c_slice<T: Copy>(values: Vec<T>, len: &mut MaybeUninit<usize>) -> *mut T {
    len.write(values.len());
    let layout = Layout::for_value(&*values);
    if layout.size() == 0 {
        return nothing(layout).cast();
    }
    let first = Box::into_raw(values.into_boxed_slice()).cast::<T>();
    give(first.cast(), layout);
    first
}

/// Gives a byte to C, for an array without bytes: each array has an address of its own.
fn nothing(layout: Layout) -> *mut u8 {
    let layout =
        Layout::from_size_align(layout.align(), layout.align()).expect("an alignment is a size, too");
    // SAFETY: the size is not zero: an alignment is at least 1.
    let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
    if pointer.is_null() {
        std::alloc::handle_alloc_error(layout);
    }
    give(pointer, layout);
    pointer
}

/// Notes that C owns the memory at `pointer`, allocated with `layout`.
fn give(pointer: *mut u8, layout: Layout) {
    assert!(!in_own_code(), "upcall: an allocator, called by code of upcall's, gives memory to C");
    sync::hold(&OWNED_BY_C).insert(pointer.expose_provenance(), layout);
}

/// Frees memory owned by C; nothing for null. Returns whether it was C's.
///
/// # Safety
/// If C owns the memory, nobody uses it any more.
pub(crate) unsafe fn free(address: usize) -> bool {
    if address == 0 {
        return true;
    }
    if in_own_code() {
        return false;
    }
    let layout = sync::hold(&OWNED_BY_C).remove(&address);
    let Some(layout) = layout else { return false };
    // SAFETY: the table had the address, so `give` exposed its provenance. It was allocated with
    // this layout by the global allocator, as boxes and vectors are. Its entry is gone, so this is
    // the only call that frees it. The caller guarantees that nobody uses the memory.
    unsafe { dealloc(ptr::with_exposed_provenance_mut(address), layout) };
    true
}
