/// The thread's `pthread_t`.
#[inline(never)]
pub(crate) fn thread_token() -> usize {
    crate::thread::thread_id()
}

/// Not known here.
pub(crate) fn is_beside_token(_address: usize) -> bool {
    false
}
