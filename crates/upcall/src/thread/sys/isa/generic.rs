/// The thread's `pthread_t`.
#[inline(never)]
pub(crate) fn thread_token() -> usize {
    crate::thread::thread_id()
}
