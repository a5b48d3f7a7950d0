// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(fibers = FIBERS);
#[upcall::export(on_panic = ())]
#[unsafe(no_mangle)]
pub extern "C" fn library_log() {
    upcall::yield_now(); // or any wait
}
