use std::future::poll_fn;
use std::task::Poll;
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(fibers = FIBERS);
unsafe extern "C" {
    fn host_raise();
}
/// Waits for a future whose poll calls C. C raises an error by `longjmp`.
#[upcall::export(on_panic = ())]
#[unsafe(no_mangle)]
pub extern "C" fn library_wait_on_c() {
    upcall::wait(poll_fn(|_| -> Poll<()> {
        upcall::downcall_on_fiber(|| unsafe { host_raise() });
        Poll::Ready(())
    }));
}
/// Waits. Called after `library_wait_on_c`.
#[upcall::export(on_panic = ())]
#[unsafe(no_mangle)]
pub extern "C" fn library_wait() {
    upcall::yield_now();
    upcall::wait(poll_fn({ let mut n = 0; move |context| { n += 1; context.waker().wake_by_ref(); if n < 3 { Poll::Pending } else { Poll::Ready(()) } } }));
}
