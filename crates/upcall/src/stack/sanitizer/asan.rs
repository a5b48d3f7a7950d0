//! AddressSanitizer: each switch of stacks is announced to it.

use std::cell::Cell;

use stackbounds::stack_pointer;

use super::super::{StackHeader, header_at, switch};
use crate::sys::isa::switch::OsBounds;

unsafe extern "C" {
    fn __sanitizer_start_switch_fiber(variables: *mut usize, low: usize, size: usize);
    fn __sanitizer_finish_switch_fiber(variables: usize, low: *mut usize, size: *mut usize);
    fn __asan_unpoison_memory_region(low: usize, size: usize);
    fn __asan_region_is_poisoned(low: usize, size: usize) -> usize;
    fn __lsan_register_root_region(low: *const u8, size: usize);
}

/// Tells the leak checker that the memory may hold pointers.
pub fn is_root(low: *const u8, size: usize) {
    // SAFETY: the memory stays mapped and readable.
    unsafe { __lsan_register_root_region(low, size) };
}

/// Marks all of `low..high` as accessible. Nothing runs there, but frames may have been
/// abandoned.
pub fn is_free(low: usize, high: usize) {
    // SAFETY: the memory belongs to one of our stacks, and nothing runs on it.
    unsafe { __asan_unpoison_memory_region(low, high - low) };
}

/// Whether some byte of the word is out of bounds.
pub fn is_out_of_bounds(word: usize) -> bool {
    // SAFETY: the function has no precondition.
    unsafe { __asan_region_is_poisoned(word, size_of::<usize>()) != 0 }
}

/// A stack that was left or is to be entered: its bounds, and its fake stack.
pub struct SavedStack {
    variables: Cell<usize>,
    low: Cell<usize>,
    size: Cell<usize>,
}

impl SavedStack {
    pub const fn new() -> Self {
        Self { variables: Cell::new(0), low: Cell::new(0), size: Cell::new(0) }
    }

    /// Records a stack on which nothing runs, and marks its memory as accessible.
    fn is_free(&self, low: usize, base: usize) {
        is_free(low, base);
        self.low.set(low);
        self.size.set(base - low);
    }

    /// Announces a switch from the stack of `self` to the stack of `to`.
    fn leave_for(&self, to: &SavedStack) {
        // SAFETY: the switch follows. The fake stack is saved for the stack of `self`.
        unsafe { __sanitizer_start_switch_fiber(self.variables.as_ptr(), to.low.get(), to.size.get()) };
    }

    /// Announces the end of a switch to the stack of `self` from the stack of `from`.
    fn enter_from(&self, from: &SavedStack) {
        // SAFETY: the switch has been made. The fake stack is the one of this stack, and the
        // bounds were given when the switch began.
        unsafe {
            __sanitizer_finish_switch_fiber(self.variables.get(), from.low.as_ptr(), from.size.as_ptr())
        };
    }
}

/// The notes for AddressSanitizer in a StackHeader.
pub struct Told {
    /// The stack itself, while nothing runs on it.
    free: SavedStack,
    /// The suspension point of the coroutine: on this stack, or on the last of its extension
    /// stacks.
    suspended: SavedStack,
    /// The stack of the coroutine's resumer.
    ///
    /// The value is in the frame that left the stack, and that frame waits.
    resumer: Cell<Option<&'static SavedStack>>,
    /// The stack on which downcalls continue; also in a waiting frame.
    system: Cell<Option<&'static SavedStack>>,
}

impl Told {
    /// Notes for an idle stack: `last` returns the header of its last use, or null.
    ///
    /// # Safety
    /// The stack is as its last user left it.
    pub unsafe fn of_idle(last: impl FnOnce() -> *const StackHeader) -> Self {
        let told = Self {
            free: SavedStack::new(),
            suspended: SavedStack::new(),
            resumer: Cell::new(None),
            system: Cell::new(None),
        };
        // SAFETY: the caller guarantees that the stack is unchanged since its last use. So
        // `last` is null or still holds a header.
        if let Some(last) = unsafe { last().as_ref() } {
            told.free.variables.set(last.told.free.variables.get());
        }
        told
    }

    /// Makes downcalls continue on the same stack as those of `other`.
    pub fn follow(&self, other: &Told) {
        self.system.set(other.system.get());
    }

    /// The stack of the coroutine's resumer.
    fn resumer(&self) -> &SavedStack {
        self.resumer.get().expect("a coroutine that runs was resumed")
    }
}

/// Extends the life of `saved`, a variable of a frame.
///
/// # Safety
/// The result is used only while the frame with `saved` waits.
unsafe fn in_frame(saved: &SavedStack) -> &'static SavedStack {
    // SAFETY: the caller uses the result only while the frame with `saved` waits.
    unsafe { &*std::ptr::from_ref(saved) }
}

/// Calls a function when dropped.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs `f` on the stack `there` below `base`, and announces the switch to it and back.
///
/// # Safety
/// As for `switch::on_stack`.
unsafe fn on_stack(
    here: &SavedStack,
    there: &SavedStack,
    base: usize,
    before: impl FnOnce(),
    f: impl FnOnce(),
) {
    here.leave_for(there);
    let _back = AtEnd(|| here.enter_from(there));
    let run = || {
        there.enter_from(here);
        let _back = AtEnd(|| there.leave_for(here));
        f();
    };
    // SAFETY: the caller guarantees an aligned and unused stack below `base`.
    unsafe { switch::on_stack(&OsBounds::new(), &OsBounds::new(), base, before, run) };
}

/// Runs `f` on a pooled stack. `beneath`: downcalls continue beneath the caller's pooled stack.
///
/// # Safety
/// Nothing uses the stack.
pub unsafe fn on_pooled(
    header: &StackHeader,
    _here: &OsBounds,
    beneath: bool,
    before: impl FnOnce(),
    f: impl FnOnce(),
) {
    let (here, told) = (SavedStack::new(), &header.told);
    told.free.is_free(header.low.get(), header.base());
    // SAFETY: `here` is in this frame, and this frame waits while code runs on the stack.
    told.system.set(Some(unsafe { in_frame(&here) }));
    if let Some(beneath) = header_at(stack_pointer()).filter(|_| beneath) {
        told.follow(&beneath.told);
    }
    // SAFETY: the caller guarantees an unused stack. A header's address is aligned.
    unsafe { on_stack(&here, &told.free, header.base(), before, f) };
}

/// Runs `f` on the system stack.
///
/// # Safety
/// As for `switch::on_system`.
pub unsafe fn on_system(_here: &OsBounds, _there: &OsBounds, system_sp: usize, f: impl FnOnce()) {
    let from = header_at(stack_pointer()).expect("upcall: the system stack is left for from a pooled stack");
    let there = from.told.system.get().expect("upcall: a pooled stack in use was entered");
    // SAFETY: the caller guarantees an unused system stack below `system_sp`.
    unsafe { on_stack(&SavedStack::new(), there, system_sp, || {}, f) };
}

/// Runs `f` on a block of memory.
///
/// # Safety
/// As for `switch::on_block`.
pub unsafe fn on_block(saved: &SavedStack, low: usize, base: usize, f: impl FnOnce()) {
    saved.is_free(low, base);
    // SAFETY: the caller guarantees an unused block, large enough for `f`.
    unsafe { on_stack(&SavedStack::new(), saved, base, || {}, f) };
}

/// Runs `resume`, which resumes the coroutine on the stack.
pub fn resumed<R>(stack: &StackHeader, resume: impl FnOnce() -> R) -> R {
    let (here, told) = (SavedStack::new(), &stack.told);
    // SAFETY: `here` is in this frame, and this frame waits until the coroutine is suspended.
    let from = Some(unsafe { in_frame(&here) });
    told.resumer.set(from);
    told.system.set(from);
    if let Some(beneath) = header_at(stack_pointer()).filter(|_| stack.beneath_resumer.get() != 0) {
        told.follow(&beneath.told);
    }
    here.leave_for(&told.suspended);
    let result = resume();
    here.enter_from(&told.suspended);
    result
}

/// Records that a coroutine is about to be made on the stack.
pub fn coroutine_made(stack: &StackHeader) {
    let told = &stack.told;
    told.free.is_free(stack.low.get(), stack.base());
    told.suspended.low.set(told.free.low.get());
    told.suspended.size.set(told.free.size.get());
}

/// Announces the first frame of the coroutine.
pub fn coroutine_begins(stack: &StackHeader) {
    stack.told.free.enter_from(stack.told.resumer());
}

/// Announces the end of the coroutine's last frame.
pub fn coroutine_ends(stack: &StackHeader) {
    stack.told.free.leave_for(stack.told.resumer());
}

/// Runs `suspend`, which suspends the coroutine.
pub fn suspended<R>(stack: &StackHeader, suspend: impl FnOnce() -> R) -> R {
    let here = SavedStack::new();
    here.leave_for(stack.told.resumer());
    let resumed = suspend();
    here.enter_from(stack.told.resumer());
    resumed
}
