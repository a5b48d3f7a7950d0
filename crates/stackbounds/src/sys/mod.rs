//! The operating system's word on the calling thread: the one place to edit for a port.
//!
//! A platform is one file here plus its line below. Its contract is three items:
//!
//! - `thread_stack(sp)`: the range of the calling thread's own stack, or `None` where the system does
//!   not say. `sp` is the stack pointer of the call, for systems that need it to bound their answer; the answer need
//!   not contain it. Guard pages are left out. Called once a thread (again only when SP is found in the range of
//!   [`ThreadStack::may_grow_to`]); may allocate and may be slow.
//! - `on_alternate_stack(sp)`: whether `sp` lies on the stack that signal handlers run on. Must be safe
//!   to call from a signal handler. Called only when `thread_stack` would be called next.
//! - Nothing else: forks are told of in the same way on every Unix; caching, estimates and registered stacks are done above this folder, for all alike.

pub mod isa;

/// What a platform says about the calling thread's own stack.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(stackbounds_no_query, allow(dead_code, reason = "nothing to report without the query"))]
pub(crate) struct ThreadStack {
    /// Lowest usable address.
    pub low: usize,
    /// One past the highest address.
    pub high: usize,
    /// How far down the stack may reach later, if that is below `low`: when SP is found between the
    /// two, the system is asked again. Elsewhere the same as `low`.
    pub may_grow_to: usize,
}

macro_rules! platforms {
    ($($file:literal if $when:meta),* $(,)?) => {
        $(#[cfg_attr(all($when, not(stackbounds_no_query)), path = $file)])*
        #[cfg_attr(any(stackbounds_no_query, not(any($($when),*))), path = "unsupported.rs")]
        mod selected;
    };
}

platforms! {
    "linux.rs" if target_os = "linux",
    "android.rs" if target_os = "android",
    "macos.rs" if target_vendor = "apple",
    "freebsd.rs" if target_os = "freebsd",
    "openbsd.rs" if target_os = "openbsd",
    "windows.rs" if windows,
}

pub(crate) use selected::{on_alternate_stack, thread_stack};

/// Has the system call these before and after each fork, the latter in parent and child. To be called once. If there is no memory for it, forks go untold.
#[cfg(unix)]
pub(crate) fn watch_forks(before: extern "C" fn(), after: extern "C" fn()) {
    // SAFETY: the functions are there for as long as the object that they are in, which takes its handlers with it.
    unsafe { libc::pthread_atfork(Some(before), Some(after), Some(after)) };
}

/// There is none.
#[cfg(not(unix))]
pub(crate) fn watch_forks(_before: extern "C" fn(), _after: extern "C" fn()) {}

/// `sigaltstack(2)` is the same call on every Unix.
#[cfg(all(unix, not(stackbounds_no_query)))]
mod unix {
    use core::ptr;

    /// Whether `sp` lies on the thread's alternate signal stack. One system call, async-signal-safe.
    pub(crate) fn on_alternate_stack(sp: usize) -> bool {
        // SAFETY: all-zero is a valid `stack_t`: a null pointer and integers.
        let mut alt: libc::stack_t = unsafe { core::mem::zeroed() };
        // SAFETY: a null first argument changes nothing; the second is valid for writing one `stack_t`.
        if unsafe { libc::sigaltstack(ptr::null(), &mut alt) } != 0 {
            return false;
        }
        alt.ss_flags & libc::SS_DISABLE == 0 && sp.wrapping_sub(alt.ss_sp as usize) < alt.ss_size
    }

    /// The range that a `pthread_attr_t` of the calling thread describes. `fill` makes the
    /// attributes describe the thread and returns 0.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    pub(crate) fn range_from_attributes(
        fill: impl FnOnce(*mut libc::pthread_attr_t) -> libc::c_int,
    ) -> Option<(usize, usize)> {
        let mut attributes = core::mem::MaybeUninit::<libc::pthread_attr_t>::zeroed();
        if fill(attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let (mut low, mut size) = (ptr::null_mut(), 0);
        // SAFETY: `fill` succeeded, so the attributes are initialised, here and for the call that
        // destroys them; `low` and `size` are valid for writing.
        let failed = unsafe {
            let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            failed
        };
        let low = low as usize;
        if failed != 0 || size == 0 { None } else { Some((low, low.checked_add(size)?)) }
    }
}
