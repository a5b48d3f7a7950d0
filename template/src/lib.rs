//! Counts words, for programs in C, C++ and Python.
//!
//! Each kind of export of a C library is here once: an object, results through pointers, strings
//! and arrays for C, a callback, an iterator, a function that waits, and an asynchronous one.
//!
//! `#[upcall::export]` gives each function a large enough stack, on any stack of the caller, and
//! catches its panics. After an error or a panic, C gets the declared value, and
//! `{{crate_name}}_last_message` tells the reason. This function comes from `c_api!`.
//! `include/{{crate_name}}.h` has the C side.

mod http;

use std::collections::{BTreeMap, btree_map};
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use upcall::{Completion, Handle, Status, Task, TaskBuilder, arg, downcall, export};

// upcall's own functions for C: {{crate_name}}_last_message and the others of
// include/{{crate_name}}_upcall.h.
upcall::c_api!({{crate_name}});

/// A table of counted words. Several threads may use it at the same time.
///
/// C has it as a typed pointer, which upcall checks at each use: a null, freed or foreign one is an
/// error.
#[derive(Default)]
pub struct Words(Mutex<BTreeMap<CString, u64>>);

impl Words {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<CString, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the words of `text`. Returns their number.
    fn add(&self, text: &str) -> usize {
        let mut counts = self.counts();
        let words = text.split([' ', '\t', '\r', '\n', '\0']);
        let mut added = 0;
        for word in words.filter(|word| !word.is_empty()) {
            let word = CString::new(word).expect("a word has no 0 byte");
            *counts.entry(word).or_insert(0) += 1;
            added += 1;
        }
        added
    }
}

/// Makes a table of words. Returns null on failure. `{{crate_name}}_free` frees it.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_new() -> *mut Words {
    Ok(Handle::into_raw(Words::default()))
}

/// Frees a table. Calls in progress on other threads keep it until they return.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_free(words: *mut Words) -> Status {
    Handle::remove(words)?;
    Ok(Status::Ok)
}

/// Counts the words of a text. Writes their number to `added`.
///
/// # Safety
/// `text` is a C string or null. `added` is valid for writing or null.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add(
    words: *const Words,
    text: *const c_char,
    added: *mut usize,
) -> Status {
    // SAFETY: the caller guarantees a C string, or null.
    let text = unsafe { arg::str(text) }?;
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let added = unsafe { arg::out(added) }?;
    added.write(Handle::with(words, |words| words.add(text))?);
    Ok(Status::Ok)
}

/// Counts the words of `size` bytes of text. Writes their number to `added`.
///
/// # Safety
/// `text` is valid for reading `size` bytes. `added` is valid for writing or null.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add_bytes(
    words: *const Words,
    text: *const u8,
    size: usize,
    added: *mut usize,
) -> Status {
    // SAFETY: the caller guarantees `size` readable bytes.
    let text = std::str::from_utf8(unsafe { arg::slice(text, size) }?)?;
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let added = unsafe { arg::out(added) }?;
    added.write(Handle::with(words, |words| words.add(text))?);
    Ok(Status::Ok)
}

/// Counts the words of the file at `path`. Writes their number to `added`.
///
/// Another thread reads the file. If the caller is on a fiber, other fibers of its thread run
/// meanwhile. Otherwise, the caller's thread waits.
///
/// # Safety
/// `path` is a C string or null. `added` is valid for writing or null.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_add_file(
    words: *const Words,
    path: *const c_char,
    added: *mut usize,
) -> Status {
    // SAFETY: the caller guarantees a C string, or null.
    let path = unsafe { arg::str(path) }?.to_owned();
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let added = unsafe { arg::out(added) }?;
    let text = upcall::blocking(move || {
        std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    })?;
    added.write(Handle::with(words, |words| words.add(&text))?);
    Ok(Status::Ok)
}

/// Adds the words of `other` to `words`.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_merge(words: *const Words, other: *const Words) -> Status {
    let other = Handle::with(other, |other| other.counts().clone())?;
    Handle::with(words, |words| {
        let mut counts = words.counts();
        for (word, count) in other {
            *counts.entry(word).or_insert(0) += count;
        }
    })?;
    Ok(Status::Ok)
}

/// Writes to `count` how often a word was counted.
///
/// # Safety
/// `word` is a C string or null. `count` is valid for writing or null.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_count(
    words: *const Words,
    word: *const c_char,
    count: *mut u64,
) -> Status {
    // SAFETY: the caller guarantees a C string, or null.
    let word = unsafe { arg::c_str(word) }?;
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let count = unsafe { arg::out(count) }?;
    count.write(Handle::with(words, |words| words.counts().get(word).copied())?.unwrap_or(0));
    Ok(Status::Ok)
}

/// Returns the word counted most often, or null if there is none, or on failure.
/// `{{crate_name}}_memory_free` frees it.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_most_common(words: *const Words) -> *mut c_char {
    let most_common = Handle::with(words, |words| {
        let counts = words.counts();
        let most_common = counts.iter().max_by_key(|(_, count)| **count);
        most_common.map(|(word, _)| word.clone())
    })?;
    let word = most_common.ok_or("there are no words")?;
    Ok(upcall::into_c_str(word.into_string()?)?)
}

/// Returns all counts, in the order of the words' bytes, and writes their number to `length`.
/// Returns null on failure. `{{crate_name}}_memory_free` frees them.
///
/// # Safety
/// `length` is valid for writing or null.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_counts(words: *const Words, length: *mut usize) -> *mut u64 {
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let length = unsafe { arg::out(length) }?;
    let counts = Handle::with(words, |words| words.counts().values().copied().collect())?;
    Ok(upcall::into_c_slice(counts, length))
}

/// Calls `visit(word, count, user)` for each word, in the order of their bytes, until it returns
/// other than 0.
///
/// Writes its last value to `answer`, 0 if there was no word. `visit` may call the functions of
/// this header, but it does not see their changes. `word` is valid until `visit` returns.
///
/// # Safety
/// `visit` may be called with `user`. `answer` is valid for writing or null.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_each(
    words: *const Words,
    visit: Option<
        unsafe extern "C-unwind" fn(word: *const c_char, count: u64, user: *mut c_void) -> c_int,
    >,
    user: *mut c_void,
    answer: *mut c_int,
) -> Status {
    let visit = visit.ok_or("visit is null")?;
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let answer = unsafe { arg::out(answer) }?.write(0);
    // `visit` may do anything, so no lock is held during its calls.
    let counts = Handle::with(words, |words| words.counts().clone())?;
    for (word, count) in counts {
        // SAFETY: the caller guarantees that `visit` may be called with `user`, and `word` is a C
        // string.
        *answer = downcall(|| unsafe { visit(word.as_ptr(), count, user) });
        if *answer != 0 {
            break;
        }
    }
    Ok(Status::Ok)
}

/// The words of a table, one after the other.
pub struct Iter {
    remaining: btree_map::IntoIter<CString, u64>,
    /// The last word, for C to read.
    word: CString,
}

/// Begins an iteration over the words as they are now, in the order of their bytes. Returns null on
/// failure. `{{crate_name}}_iterator_free` frees it.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_iterate(words: *const Words) -> *mut Iter {
    let remaining = Handle::with(words, |words| words.counts().clone())?.into_iter();
    Ok(Handle::into_raw(Iter {
        remaining,
        word: CString::default(),
    }))
}

/// Writes the next word and its count. Returns 1; 0 if there are no more; -1 on failure.
///
/// `word` is valid until the next call.
///
/// # Safety
/// `word` and `count` are valid for writing, or null.
#[export(on_error = -1)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_iterator_next(
    iter: *mut Iter,
    word: *mut *const c_char,
    count: *mut u64,
) -> c_int {
    // SAFETY: the caller guarantees pointers valid for writing, or null.
    let (word, count) = unsafe { (arg::out(word)?, arg::out(count)?) };
    let next = Handle::with_mut(iter, |iter| {
        let (next, count) = iter.remaining.next()?;
        iter.word = next;
        Some((iter.word.as_ptr(), count))
    })?;
    let (next, n) = next.unwrap_or((null(), 0));
    word.write(next);
    count.write(n);
    Ok(c_int::from(!next.is_null()))
}

/// Frees an iteration.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub extern "C" fn {{crate_name}}_iterator_free(iter: *mut Iter) -> Status {
    Handle::remove(iter)?;
    Ok(Status::Ok)
}

/// Starts to fetch a page, to count its words, within `milliseconds`.
///
/// `server` is an address with a port, such as `127.0.0.1:8000`. When the fetch has ended,
/// `done(data, task, status)` is called once, on any thread; `done` may be null.
/// `{{crate_name}}_fetched` counts the words. Returns null if the fetch could not be started.
/// `{{crate_name}}_task_free` frees the task.
///
/// # Safety
/// `server` and `path` are C strings or null. Any thread may call `done(data, …)`, once.
#[export(on_error = null_mut())]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_fetch(
    server: *const c_char,
    path: *const c_char,
    milliseconds: u32,
    done: Option<unsafe extern "C-unwind" fn(data: *mut c_void, task: *mut Task, status: c_int)>,
    data: *mut c_void,
) -> *mut Task {
    // SAFETY: the caller guarantees C strings, or null.
    let (server, path) = unsafe { (arg::str(server)?.to_owned(), arg::str(path)?.to_owned()) };
    // SAFETY: the caller guarantees that any thread may call it.
    let done = unsafe { Completion::c(done, data) };
    let fetch = async move { http::get(&server, &path).await };
    let deadline = Duration::from_millis(milliseconds.into());
    Ok(TaskBuilder::new().deadline(deadline).start(fetch, done)?)
}

/// Counts the words of a fetched page, once. Writes their number to `added`.
///
/// # Safety
/// `added` is valid for writing or null.
#[export(on_error = Status::Error)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn {{crate_name}}_fetched(
    words: *const Words,
    task: *mut Task,
    added: *mut usize,
) -> Status {
    // SAFETY: the caller guarantees a pointer valid for writing, or null.
    let added = unsafe { arg::out(added) }?;
    added.write(Handle::with(words, |words| {
        Task::take::<String>(task).map(|page| words.add(&page))
    })??);
    Ok(Status::Ok)
}
