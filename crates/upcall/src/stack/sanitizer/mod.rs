//! Tells tools of stacks and of the switches between them. Without these tools, it does nothing, at
//! no cost.
//!
//! AddressSanitizer (feature `sanitizer`) is told of every switch: which stack is in use, and its
//! fake stack. The fake stack holds variables away from the real one, to find uses after return.
//! Rule: **a stack has one fake stack.** Whoever leaves the stack saves it in a [`SavedStack`] and
//! restores it on return.
//!
//! ThreadSanitizer (`--cfg upcall_tsan`) is told of coroutines, because their calls and returns
//! interleave. An upcall or a downcall on another stack is an ordinary call to it, and returns.
//!
//! Valgrind needs no feature: it is told of stacks by requests without effect outside it.

#[cfg_attr(not(feature = "sanitizer"), path = "no_asan.rs")]
mod asan;
#[cfg_attr(not(upcall_tsan), path = "no_tsan.rs")]
mod tsan;

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::for_upcall::valgrind;

use super::StackHeader;

pub(crate) use asan::{
    SavedStack, Told, coroutine_begins, coroutine_ends, on_block, on_pooled, on_system, resumed, suspended,
};
pub(crate) use tsan::Fiber;

/// Tells Valgrind, if it runs, that this memory is a stack, and the leak checker that it may hold
/// pointers.
///
/// Neither is ever taken back.
pub(crate) fn stack_made(low: *mut u8, size: usize) {
    const STACK_REGISTER: usize = 0x1501;
    // SAFETY: the memory is a stack, as the request says.
    unsafe { valgrind([STACK_REGISTER, low as usize, low as usize + size, 0, 0, 0]) };
    asan::is_root(low, size);
}

/// Whether Valgrind's Memcheck runs. Found out when the first stack is taken.
static MEMCHECK: AtomicBool = AtomicBool::new(false);

/// Tells Memcheck that `low..high`, on one of our stacks, may be written and holds nothing.
fn is_blank(low: usize, high: usize) {
    const MAKE_MEM_UNDEFINED: usize = ((b'M' as usize) << 24 | (b'C' as usize) << 16) + 1;
    // SAFETY: the request describes memory on one of our stacks, and changes nothing.
    if unsafe { valgrind([MAKE_MEM_UNDEFINED, low, high - low, 0, 0, 0]) } != 0 {
        MEMCHECK.store(true, Relaxed);
    }
}

/// Tells tools that a stack holds nothing, before it is taken.
///
/// Frames on it may have been abandoned, and to tools, memory that SP has left is out of bounds.
pub(crate) fn is_free(low: usize, high: usize) {
    is_blank(low, high);
    asan::is_free(low, high);
}

/// Tells Memcheck that C is about to continue at `system_sp`.
///
/// Memcheck follows SP only within a stack. The first push after a switch is below the red zone of
/// the frame before it, so Memcheck would report a write out of bounds.
#[inline(always)]
pub(crate) fn c_goes_on(system_sp: usize) {
    #[cold]
    fn tell(system_sp: usize) {
        is_blank(system_sp - 2 * size_of::<usize>(), system_sp);
    }
    if MEMCHECK.load(Relaxed) {
        tell(system_sp);
    }
}

/// The words in `from..to`, among frames of any functions.
///
/// AddressSanitizer considers the gaps between their variables out of bounds: these words are
/// skipped. Memcheck considers words not yet written as undefined: the copies are declared as
/// defined.
///
/// # Safety
/// The words are aligned, and readable for as long as the iterator is used.
pub(crate) unsafe fn words(from: usize, to: usize) -> impl Iterator<Item = usize> {
    const WORD: usize = size_of::<usize>();
    const RUNNING_ON_VALGRIND: usize = 0x1001;
    const MAKE_MEM_DEFINED: usize = ((b'M' as usize) << 24 | (b'C' as usize) << 16) + 2;
    // SAFETY: the request is a question, and changes nothing.
    let on_valgrind = unsafe { valgrind([RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0]) } != 0;
    let addresses = (from..to.saturating_sub(WORD - 1)).step_by(WORD);
    addresses.filter(|&address| !asan::is_out_of_bounds(address)).map(move |address| {
        // SAFETY: the caller guarantees an aligned and readable word. It may hold anything: every
        // bit pattern is a `usize`.
        let word = Cell::new(unsafe { (address as *const usize).read_volatile() });
        if on_valgrind {
            // SAFETY: the request says that a local variable of ours has a value, which is true.
            unsafe { valgrind([MAKE_MEM_DEFINED, word.as_ptr() as usize, WORD, 0, 0, 0]) };
        }
        word.get()
    })
}

/// Tells tools that a coroutine is about to be made on the stack.
pub(crate) fn coroutine_made(stack: &StackHeader) {
    if MEMCHECK.load(Relaxed) {
        is_blank(stack.low.get(), stack.base());
    }
    asan::coroutine_made(stack);
}
