//! Counts words, for C programs: an object that C makes, uses and frees; a C function that Rust calls back; a function that waits.
//!
//! `#[upcall::export]` gives each function a stack that is large enough, wherever C calls from, and catches its panics: C gets `on_panic`
//! then, and `upcall_last_panic` says why. See `include/{{crate_name}}.h` for the C side.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use upcall::{downcall, export};

/// Counted words. Any thread may use it, several at a time.
#[derive(Default)]
pub struct Words {
    counts: Mutex<BTreeMap<CString, u64>>,
}

impl Words {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<CString, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the words of `text`; says how many there are.
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

/// Makes an object that counts words; null if that fails. It is freed by `{{crate_name}}_free`.
#[export(on_panic = std::ptr::null_mut())]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_new() -> *mut Words {
    Box::into_raw(Box::default())
}

/// Frees `words`, which may be null. No other call may use it any more.
///
/// # Safety
/// It came from `{{crate_name}}_new`, and is not used again.
#[export(on_panic = ())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_free(words: *mut Words) {
    if !words.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(words) });
    }
}

/// Counts the words of `text`, which are separated by spaces and line ends. Returns how many there are, or -1.
///
/// # Safety
/// `words` came from `{{crate_name}}_new`; `text` is a C string.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add(words: *const Words, text: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { (*words).add(CStr::from_ptr(text).to_bytes()) }
}

/// Counts the words of the file at `path`. Returns how many there are, or -1 if it cannot be read.
///
/// The file is read on another thread. If this is called on a fiber, other fibers of the thread run meanwhile; otherwise the thread waits.
///
/// # Safety
/// `words` came from `{{crate_name}}_new`; `path` is a C string.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add_file(words: *const Words, path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }
        .to_str()
        .expect("the path is not UTF-8");
    let path = PathBuf::from(path);
    let read = upcall::blocking(move || std::fs::read(&path).map_err(|error| (path, error)));
    let text = read.unwrap_or_else(|(path, error)| panic!("{}: {error}", path.display()));
    // SAFETY: the caller's promise.
    unsafe { &*words }.add(&text)
}

/// What is called for each word. Other than 0 ends the iteration.
pub type Visit =
    Option<unsafe extern "C" fn(word: *const c_char, count: u64, user: *mut c_void) -> c_int>;

/// Calls `visit(word, count, user)` for each word, in the order of their bytes, until it answers other than 0.
///
/// Returns its last answer, 0 if there was no word, or -1. `visit` may call the functions of this header; it does not see what they
/// change. `word` is good until it returns.
///
/// # Safety
/// `words` came from `{{crate_name}}_new`; `visit` may be called with `user`.
#[export(on_panic = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_each(
    words: *const Words,
    visit: Visit,
    user: *mut c_void,
) -> c_int {
    let visit = visit.expect("visit is null");
    // What C does may be anything, so no lock is held meanwhile. SAFETY: the caller's promise.
    let counts = unsafe { &*words }.counts().clone();
    for (word, count) in counts {
        // SAFETY: the caller's promise; the word is a C string.
        let answer = downcall(|| unsafe { visit(word.as_ptr(), count, user) });
        if answer != 0 {
            return answer;
        }
    }
    0
}
