//! Switches of corosensei, for any other architecture.

use std::mem::MaybeUninit;
use std::ptr;

use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::{Begin, OsBounds};

/// Whether unwinders take the frames of switches for signal frames.
pub const MARKED_AS_HANDLERS: bool = true;

/// A stack, identified by its base.
struct Base(usize);

// SAFETY: whoever makes a `Base` guarantees a stack below it, with a guard or large enough to need
// none.
unsafe impl Stack for Base {
    #[inline(always)]
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0).expect("the address of a stack")
    }

    /// The base again. Only corosensei's trap handlers ask for the limit, and nobody uses them.
    fn limit(&self) -> StackPointer {
        self.base()
    }
}

/// Calls `f(argument)` on the stack ending at `base`.
///
/// # Safety
/// `base` is a multiple of the stack alignment. Below it is enough memory for `f`, in use by
/// nothing else. `f` may be called with the argument, and does not unwind.
#[inline(always)]
pub unsafe fn call(
    argument: *mut u8,
    base: usize,
    f: unsafe extern "C" fn(*mut u8),
    _here: &OsBounds,
    _there: &OsBounds,
) {
    // SAFETY: the caller guarantees an unused stack below `base`, and that `f` may be called with
    // the argument.
    corosensei::on_stack(Base(base), || unsafe { f(argument) });
}

type Inner = Coroutine<*mut (), *mut (), (), Base>;

/// Joins a coroutine to its resumer.
#[repr(C, align(16))]
pub struct Link {
    inner: MaybeUninit<Inner>,
    yielder: *const Yielder<*mut (), *mut ()>,
}

impl Link {
    /// Makes a coroutine that will call `begin(argument, link)` with frames from `sp` downwards.
    ///
    /// # Safety
    /// `link` is writable and stays in place. `sp` is a multiple of the stack alignment. Below it
    /// is a stack, in use by nothing else.
    pub unsafe fn init(link: *mut Link, sp: usize, begin: Begin, _bounds: OsBounds) {
        let inner = Inner::with_stack(Base(sp), move |yielder, argument| {
            // SAFETY: the caller guarantees that the link stays in place, and nobody borrows it.
            // The yielder lives as long as the coroutine's frames.
            unsafe {
                (*link).yielder = yielder;
                begin(argument, link)
            }
        });
        // SAFETY: the caller guarantees that `link` is writable.
        unsafe { link.write(Link { inner: MaybeUninit::new(inner), yielder: ptr::null() }) };
    }

    /// Resumes the coroutine. Returns the pointer passed to [`suspend`](Self::suspend) or
    /// [`finish`](Self::finish).
    ///
    /// # Safety
    /// The coroutine is new or suspended, and its code accepts the argument.
    #[inline(always)]
    pub unsafe fn resume(link: *mut Link, argument: *mut ()) -> *mut () {
        // SAFETY: `init` has run. Only a resumer borrows `inner`, and there is one at a time.
        let inner = unsafe { (*link).inner.assume_init_mut() };
        match inner.resume(argument) {
            CoroutineResult::Yield(passed) => passed,
            CoroutineResult::Return(()) => {
                unreachable!("upcall: a coroutine's first function does not return")
            }
        }
    }

    /// Suspends the coroutine and passes `passed` to its resumer. Returns the argument of the next
    /// resumption.
    ///
    /// # Safety
    /// The link belongs to the coroutine whose code calls this.
    #[inline(always)]
    pub unsafe fn suspend(link: *mut Link, passed: *mut ()) -> *mut () {
        // SAFETY: the coroutine's first frame has set the yielder, and the yielder lives as long as
        // that frame.
        unsafe { (*(*link).yielder).suspend(passed) }
    }
}
