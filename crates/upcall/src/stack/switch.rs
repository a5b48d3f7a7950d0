//! The switch from one stack to another and back: the only uses of `corosensei::on_stack`.
//!
//! A panic on the other stack is caught there by corosensei and raised again on the stack that was left. One rule: **C never runs where
//! frames are**: the system stack of a downcall begins below the frame that left it, with room for a red zone and what the switch itself
//! pushes.

use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::Relaxed;

use corosensei::stack::{STACK_ALIGNMENT, Stack, StackPointer};
use stackbounds::stack_pointer;

use super::pool::GUARD;
use super::{Control, sanitizer};

/// Kept free below the stack pointer of a frame that switches away: the red zones of the x86-64 (128 bytes) and
/// aarch64 (none, 128 on Apple's) calling conventions, and a return address and saved registers.
const BELOW_FRAME: usize = 256;

#[inline(always)]
fn pointer(address: usize) -> StackPointer {
    // SAFETY: an address inside a stack, or at one end of it: none is 0.
    unsafe { NonZeroUsize::new_unchecked(address) }
}

/// Runs `f` on a pooled stack. While it runs, C's stack continues at `system_sp`, or if that is
/// `None`, below the frame that calls this.
#[inline(always)]
pub(crate) fn on_pooled(stack: &Control, system_sp: Option<usize>, f: impl FnOnce()) {
    struct Pooled<'a>(&'a Control, Option<usize>);
    // SAFETY: a pooled stack has GUARD bytes of guard pages below `low`, and at least as many usable above.
    unsafe impl Stack for Pooled<'_> {
        /// corosensei asks for the base in the frame that makes the switch, so the stack pointer
        /// here is at that frame's low end, or below.
        #[inline(always)]
        fn base(&self) -> StackPointer {
            let here = stack_pointer();
            let below_frame = || (here - BELOW_FRAME) & !(STACK_ALIGNMENT - 1);
            self.0.system_sp.store(self.1.unwrap_or_else(below_frame), Relaxed);
            pointer(self.0.base())
        }

        fn limit(&self) -> StackPointer {
            pointer(self.0.low.get() - GUARD)
        }
    }
    sanitizer::on_pooled(stack, system_sp.is_some(), Pooled(stack, system_sp), f);
}

/// Runs `f` on the system stack, from `system_sp` downwards.
///
/// # Safety
/// `system_sp` is that of the stack in use: it was set when that was entered, by [`on_pooled`], or its coroutine resumed. Whoever did so waits, so that nothing
/// is in use below.
#[inline(always)]
pub(crate) unsafe fn on_system(system_sp: usize, f: impl FnOnce()) {
    struct System(usize);
    // SAFETY: it is the host's stack, with the host's guard, or lack of one. What is left of it is what C would have if
    // it were called there; that it is enough is the host's affair, as it is for any call between C functions.
    unsafe impl Stack for System {
        #[inline(always)]
        fn base(&self) -> StackPointer {
            pointer(self.0)
        }

        fn limit(&self) -> StackPointer {
            stackbounds::at(self.0).low().try_into().unwrap_or(StackPointer::MIN)
        }
    }
    sanitizer::c_goes_on(system_sp);
    sanitizer::on_system(System(system_sp), f);
}

/// Runs `f` on a block of memory that is kept as a stack.
///
/// # Safety
/// `low..base` is memory that nothing else uses, all of it writable but for guard pages at its low end. There are 4096 bytes above those; where it has none, as many as
/// `f` will ever need.
pub(super) unsafe fn on_block(low: usize, base: usize, left: &sanitizer::Left, f: impl FnOnce()) {
    struct Block(usize, usize);
    // SAFETY: the caller's promise: guard pages, or no need of them.
    unsafe impl Stack for Block {
        #[inline(always)]
        fn base(&self) -> StackPointer {
            pointer(self.1)
        }

        fn limit(&self) -> StackPointer {
            pointer(self.0)
        }
    }
    sanitizer::on_block(left, low, Block(low, base), f);
}
