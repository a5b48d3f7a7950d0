//! The functions of the libraries beside the guest, each under the library's own names.

macro_rules! library {
    ($prefix:ident: $call:ident $panic:ident $is_in_place:ident $on_worker:ident $threads:ident) => {
        use std::ffi::{CStr, c_char, c_int, c_void};

        // SAFETY: no code on fibers borrows a thread-local across a wait, and no initialiser of a
        // thread-local waits.
        const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
        upcall::c_api!($prefix, fibers = FIBERS);

        /// Makes a downcall in an upcall.
        #[upcall::export(on_panic = -1)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $call(
            callback: extern "C" fn(*mut c_void) -> c_int,
            argument: *mut c_void,
        ) -> c_int {
            upcall::downcall(|| callback(argument))
        }

        /// Panics with `message`.
        ///
        /// # Safety
        /// `message` must be a C string.
        #[upcall::export(on_panic = -1)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $panic(message: *const c_char) -> c_int {
            // SAFETY: the caller guarantees that `message` is a C string.
            let message = unsafe { CStr::from_ptr(message) };
            std::panic::resume_unwind(Box::new(message.to_string_lossy().into_owned()))
        }

        /// Returns 1 if an upcall runs on the caller's stack, otherwise 0; -1 if it is refused.
        #[unsafe(no_mangle)]
        pub extern "C" fn $is_in_place() -> c_int {
            let outside = stackbounds::stack_pointer();
            let is_near = || (stackbounds::stack_pointer().abs_diff(outside) < 16 << 10).into();
            upcall::enter(is_near).unwrap_or(-1)
        }

        /// Runs a fiber on a worker; the fiber sleeps for a millisecond. Returns 0, or -1 after a
        /// shutdown.
        #[upcall::export(on_panic = -1)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $on_worker() -> c_int {
            let sleep = || upcall::sleep(std::time::Duration::from_millis(1));
            FIBERS.spawn(sleep).join().map_or(-1, |()| 0)
        }

        /// Returns the number of attached threads.
        #[unsafe(no_mangle)]
        pub extern "C" fn $threads() -> c_int {
            upcall::snapshot().threads.len() as c_int
        }
    };
}
