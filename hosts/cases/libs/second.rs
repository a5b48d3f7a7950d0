use std::ffi::c_int;
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(second, fibers = FIBERS);
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn h_add(a: c_int, b: c_int) -> c_int { std::hint::black_box(a) + b }
#[upcall::export(on_panic = -8)]
#[unsafe(no_mangle)]
pub extern "C" fn h_panic() -> c_int { panic!("the second library panicked") }
#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn h_local_spawn() -> c_int { drop(FIBERS.spawn_local(|| ())); 0 }
