//! The switch from one stack to another and back.
//!
//! A panic on the other stack is caught there and raised again on the stack of the caller. Rule:
//! **C never runs over live frames.** The system stack of a downcall begins below the frame leaving
//! it. Between them is room for a red zone and the data pushed by the switch itself.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::stack_pointer;

use super::{StackHeader, mend_os_bounds, sanitizer};
use crate::sys::isa::switch::{self, OsBounds, STACK_ALIGNMENT};

/// Bytes kept free below the SP of a frame before a switch.
///
/// They hold the red zone of the calling convention (x86-64: 128 bytes; aarch64: none, on Apple's
/// systems 128), a return address and saved registers.
const BELOW_FRAME: usize = 256;

/// Runs `f` on a pooled stack.
///
/// Meanwhile, C's stack continues at `system_sp`, whose bounds the stack has; or if that is `None`,
/// below the frame of the caller.
#[inline(always)]
pub(crate) fn on_pooled(stack: &StackHeader, system_sp: Option<usize>, f: impl FnOnce()) {
    let note_system_sp = || {
        let below_frame = || (stack_pointer() - BELOW_FRAME) & !(STACK_ALIGNMENT - 1);
        stack.system_sp.store(system_sp.unwrap_or_else(below_frame), Relaxed);
    };
    let here = OsBounds::new();
    if system_sp.is_none() {
        stack.system_bounds.set(&here);
    }
    // SAFETY: the stack was taken for `f`, from the pool or the spares, so nothing else runs on it.
    unsafe { sanitizer::on_pooled(stack, &here, system_sp.is_some(), note_system_sp, f) };
}

/// Runs `f` on the system stack, from `system_sp` downwards. `stack` is the one in use.
///
/// # Safety
/// `system_sp` is the one in the header of `stack`. It was set when that stack was entered by
/// [`on_pooled`], or when its coroutine was resumed. Whoever did so waits, so nothing below
/// `system_sp` is in use.
#[inline(always)]
pub(crate) unsafe fn on_system(stack: &StackHeader, system_sp: usize, f: impl FnOnce()) {
    mend_os_bounds(stack_pointer());
    sanitizer::c_goes_on(system_sp);
    // SAFETY: the caller guarantees that nothing below `system_sp` is in use, and that whoever set
    // it waits, with the bounds. `f` has the same room as C would have if it were called there. The
    // host has to provide enough, as for any call between C functions.
    unsafe { sanitizer::on_system(&stack.os_bounds, stack.system_bounds.get(), system_sp, f) };
}

/// Runs `f` on the block of memory `low..base`, used as a stack.
///
/// # Safety
/// Nothing else uses the memory. It is writable except for guard pages at its low end. Above the
/// guard pages are at least 4096 bytes. Without guard pages, it has all the bytes that `f` will
/// ever need. `base` is a multiple of the stack alignment.
pub(super) unsafe fn on_block(low: usize, base: usize, saved: &sanitizer::SavedStack, f: impl FnOnce()) {
    // SAFETY: the caller guarantees that the block is unused, writable, aligned and large enough
    // for `f`.
    unsafe { sanitizer::on_block(saved, low, base, f) };
}

/// Runs `f` on the stack ending at `base`, and passes on its panic.
///
/// Calls `before` in the frame of the switch, or just below it. `here` and `there` are for the
/// bounds of the two stacks.
///
/// # Safety
/// `base` is a multiple of the stack alignment. Below it is enough memory for `f`, in use by
/// nothing else.
#[inline(always)]
pub(super) unsafe fn on_stack<F: FnOnce()>(
    here: &OsBounds,
    there: &OsBounds,
    base: usize,
    before: impl FnOnce(),
    f: F,
) {
    union Slot<F> {
        f: ManuallyDrop<F>,
        result: ManuallyDrop<std::thread::Result<()>>,
    }
    /// Takes the function out of `slot`, calls it, and puts its result there.
    ///
    /// # Safety
    /// `slot` points to a `Slot<F>` holding a function.
    unsafe extern "C" fn run<F: FnOnce()>(slot: *mut u8) {
        // SAFETY: the caller guarantees that `slot` holds a function. It is taken out once, and the
        // result is put in its place.
        unsafe {
            let slot = slot.cast::<Slot<F>>();
            let f = ManuallyDrop::take(&mut (*slot).f);
            (*slot).result = ManuallyDrop::new(catch_unwind(AssertUnwindSafe(f)));
        }
    }
    let mut slot = Slot { f: ManuallyDrop::new(f) };
    before();
    // SAFETY: the caller guarantees an aligned and unused stack below `base`. `run` gets the slot
    // that it needs, does not unwind, and leaves a result there.
    let result = unsafe {
        switch::call((&raw mut slot).cast(), base, run::<F>, here, there);
        ManuallyDrop::take(&mut slot.result)
    };
    if let Err(payload) = result {
        resume_unwind(payload);
    }
}
