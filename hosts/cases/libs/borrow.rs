//! A library in safe Rust, except for the promise and the exported name. C calls its function. The
//! function waits while it borrows a thread-local.
use std::future::pending;
// SAFETY: `library_wait` breaks the promise on purpose. It is sound only because upcall unwinds a
// thread's fibers before the thread-locals of the thread go, as this case shows.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
upcall::c_api!(fibers = FIBERS);
struct Guard<'a>(&'a str);
impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let spray: Vec<String> = (0..64).map(|_| "X".repeat(56)).collect();
        std::hint::black_box(&spray);
        println!("a destructor, when the fiber is ended, sees {:?}", String::from_utf8_lossy(self.0.as_bytes()));
    }
}
thread_local! { static NAME: String = "a value of a thread-local, alive as long as its thread..".to_owned(); }

#[upcall::export(on_panic = -1)]
#[unsafe(no_mangle)]
pub extern "C" fn library_wait() -> i32 {
    NAME.with(|name| {
        let _guard = Guard(name);
        upcall::wait(pending::<()>());
    });
    0
}
