#[path = "words.rs"]
mod words;

pub(crate) use words::{add_at, is_beside_token, swap_if_at};

/// The thread's `pthread_t`.
#[inline(never)]
pub(crate) fn thread_token() -> usize {
    crate::thread::os_thread_id()
}
