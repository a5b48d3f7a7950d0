//! SIGPIPE, for Rust code writing to a pipe or socket after its other end was closed.
//!
//! The signal goes to the writing thread, but its effect is set for the whole process. So a library
//! can only block it on its own thread, take away a pending one, and restore the signal mask. Rule:
//! **while SIGPIPE is blocked here, no code of others runs on the thread.** Hence waits inside
//! block the thread, and fibers run by the thread meanwhile have the mask from before.

use std::cell::Cell;

use stackbounds::stack_pointer;

use crate::coroutine::FiberContext;
use crate::sys::{block_sigpipe, sigpipe_is_pending, take_sigpipe, unblock_sigpipe};
use crate::thread::ThreadState;

thread_local! {
    /// SP of the thread's outermost section that has blocked the signal; 0 if there is none.
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f` without SIGPIPE: writing to a closed pipe or socket is an error there.
///
/// The error is [`BrokenPipe`](std::io::ErrorKind::BrokenPipe), whatever the host does about the
/// signal. By default, the signal ends the process. Rust's standard library ignores it in programs
/// with a `main` in Rust. A library must not ignore it, since children would inherit that. If a
/// host in another language loads your library, wrap the code that writes:
///
/// ```
/// use std::io::Write;
///
/// let (reader, mut writer) = std::os::unix::net::UnixStream::pair()?;
/// drop(reader);
/// let error = upcall::without_sigpipe(|| writer.write_all(b"into the void")).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The signal is blocked on the calling thread, even if the host has a handler for it. A SIGPIPE
/// that became pending in `f` is taken away at the end, also if `f` panics. One pending before
/// stays. This takes four system calls. Threads and child processes started by `f` inherit the
/// block: start them outside.
///
/// A [`wait`](crate::wait) in `f` blocks the thread, on a fiber too, since the mask belongs to the
/// thread. Code run there meanwhile has the mask from before. If C abandons `f` by `longjmp`, the
/// signal stays blocked until the thread's next call of this function ends.
pub fn without_sigpipe<R>(f: impl FnOnce() -> R) -> R {
    let _blocks = ThreadState::current().fiber_at(stack_pointer()).map(FiberContext::enter);
    let _section = Section::begin(stack_pointer());
    f()
}

/// Runs `f`, code of others, with the mask from before the open section, if there is one.
#[inline]
pub(crate) fn outside<R>(f: impl FnOnce() -> R) -> R {
    if OPEN.get() == 0 { f() } else { outside_of_open(f) }
}

#[cold]
fn outside_of_open<R>(f: impl FnOnce() -> R) -> R {
    struct Saved(usize);
    impl Drop for Saved {
        fn drop(&mut self) {
            block_sigpipe();
            OPEN.set(self.0);
        }
    }
    let _saved = Saved(OPEN.replace(0));
    end();
    f()
}

/// Ends the effect of the open section.
fn end() {
    take_sigpipe();
    unblock_sigpipe();
}

/// A section of `without_sigpipe`, by the duty at its end.
enum Section {
    /// It has blocked the signal. The thread did not block it before, so none was pending.
    Blocks,
    /// The thread blocks the signal anyway, and none was pending.
    Takes,
    /// Nothing to do at the end.
    Inner,
}

impl Section {
    fn begin(sp: usize) -> Self {
        let open = OPEN.get();
        if open != 0 && !ThreadState::current().is_abandoned(open, sp) {
            return Self::Inner;
        }
        let was_pending = open == 0 && sigpipe_is_pending();
        let was_blocked = block_sigpipe() && open == 0;
        if !was_blocked {
            OPEN.set(sp);
            Self::Blocks
        } else if was_pending {
            Self::Inner
        } else {
            Self::Takes
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        match self {
            Self::Blocks => {
                OPEN.set(0);
                end();
            }
            Self::Takes => take_sigpipe(),
            Self::Inner => {}
        }
    }
}
