//! Counts words, for C programs.
//!
//! The library shows an object made, used and freed by C; a C function called back by Rust; and a
//! function that waits.
//!
//! `#[upcall::export]` gives each function a large enough stack, on any stack of the caller, and
//! catches its panics. After a panic, C gets the `on_panic` value, and
//! `{{crate_name}}_last_message` tells the reason. This function comes from `c_api!`.
//! `include/{{crate_name}}.h` has the C side.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use upcall::{downcall, export};

// upcall's own functions for C: {{crate_name}}_last_message and the others of
// include/{{crate_name}}_upcall.h.
upcall::c_api!({{crate_name}});

/// A table of counted words. Several threads may use it at the same time.
#[derive(Default)]
pub struct Words {
    counts: Mutex<BTreeMap<CString, u64>>,
}

impl Words {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<CString, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the words of `text`. Returns their number.
    fn add(&self, text: &[u8]) -> c_int {
        let mut counts = self.counts();
        let mut added = 0;
        for word in text
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
        {
            let word = CString::new(word).expect("a text has no 0 byte in it");
            *counts.entry(word).or_insert(0) += 1;
            added += 1;
        }
        added
    }
}

/// Makes a table of words, or returns null on failure. `{{crate_name}}_free` frees it.
#[export(on_panic = std::ptr::null_mut())]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_new() -> *mut Words {
    Box::into_raw(Box::default())
}

/// Frees `words`, which may be null.
///
/// # Safety
/// `words` comes from `{{crate_name}}_new` or is null. No other call uses it now or later.
#[export(on_panic = ())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_free(words: *mut Words) {
    if !words.is_null() {
        // SAFETY: the caller guarantees that the box comes from `{{crate_name}}_new` and has no
        // other user.
        drop(unsafe { Box::from_raw(words) });
    }
}

/// Counts the words of `text`, separated by spaces and line ends. Returns their number, or -1 on
/// failure.
///
/// # Safety
/// `words` comes from `{{crate_name}}_new` and has not been freed. `text` is a C string.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add(words: *const Words, text: *const c_char) -> c_int {
    // SAFETY: the caller guarantees a live table and a C string.
    unsafe { (*words).add(CStr::from_ptr(text).to_bytes()) }
}

/// Counts the words of the file at `path`. Returns their number, or -1 if the file cannot be read.
///
/// Another thread reads the file. If the caller is on a fiber, other fibers of its thread run
/// meanwhile. Otherwise, the caller's thread waits.
///
/// # Safety
/// `words` comes from `{{crate_name}}_new` and has not been freed. `path` is a C string.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add_file(words: *const Words, path: *const c_char) -> c_int {
    // SAFETY: the caller guarantees that `path` is a C string.
    let path = unsafe { CStr::from_ptr(path) }
        .to_str()
        .expect("the path is not UTF-8");
    let path = PathBuf::from(path);
    let read = upcall::blocking(move || std::fs::read(&path).map_err(|error| (path, error)));
    let text = read.unwrap_or_else(|(path, error)| panic!("{}: {error}", path.display()));
    // SAFETY: the caller guarantees a live table, during the whole call.
    unsafe { &*words }.add(&text)
}

/// A function called for each word. A value other than 0 ends the iteration.
pub type Visit = Option<
    unsafe extern "C-unwind" fn(word: *const c_char, count: u64, user: *mut c_void) -> c_int,
>;

/// Calls `visit(word, count, user)` for each word, in the order of their bytes, until it returns
/// other than 0.
///
/// Returns its last value, 0 if there was no word, or -1 on failure. `visit` may call the functions
/// of this header, but it does not see their changes. `word` is valid until `visit` returns.
///
/// # Safety
/// `words` comes from `{{crate_name}}_new` and has not been freed. `visit` may be called with
/// `user`.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_each(
    words: *const Words,
    visit: Visit,
    user: *mut c_void,
) -> c_int {
    let visit = visit.expect("visit is null");
    // `visit` may do anything, so no lock is held during its calls.
    // SAFETY: the caller guarantees a live table.
    let counts = unsafe { &*words }.counts().clone();
    for (word, count) in counts {
        // SAFETY: the caller guarantees that `visit` may be called with `user`, and `word` is a C
        // string.
        let answer = downcall(|| unsafe { visit(word.as_ptr(), count, user) });
        if answer != 0 {
            return answer;
        }
    }
    0
}
