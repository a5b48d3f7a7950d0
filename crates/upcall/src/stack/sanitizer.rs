//! What tools are told of stacks and of the switches between them. Where they are not asked for, nothing, and at no cost.
//!
//! AddressSanitizer (feature `sanitizer`) is told of every switch: which stack is in use, and where the variables are that it keeps away
//! from the stack, to find uses after return. Rule: **a stack has one such place**, which whoever leaves the stack notes in a [`Left`]
//! and returns by. corosensei's own hooks would have it make a place for each call, and free none.
//!
//! ThreadSanitizer (`--cfg upcall_tsan`) is told of coroutines, whose calls and returns interleave. An upcall or a downcall on another
//! stack is a call to it, which returns.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use corosensei::stack::valgrind::ValgrindStackRegistration;

use super::Control;

pub(super) use asan::{
    Left, Told, coroutine_begins, coroutine_ends, on_block, on_pooled, on_system, resumed, suspended,
};
pub(super) use tsan::Fiber;

/// Tells Valgrind, where it runs, that this memory is a stack, and the leak checker that it may hold pointers; for ever.
pub(super) fn stack_made(low: *mut u8, size: usize) {
    std::mem::forget(ValgrindStackRegistration::new(low, size));
    asan::is_root(low, size);
}

/// Whether Valgrind's memcheck runs, as was found out when the first stack was taken.
static MEMCHECK: AtomicBool = AtomicBool::new(false);

/// Says that `low..high`, on a stack of ours, is memory to be written, and nothing is in it.
fn is_blank(low: usize, high: usize) {
    const MAKE_MEM_UNDEFINED: usize = ((b'M' as usize) << 24 | (b'C' as usize) << 16) + 1;
    if stackbounds::valgrind([MAKE_MEM_UNDEFINED, low, high - low, 0, 0, 0]) != 0 {
        MEMCHECK.store(true, Relaxed);
    }
}

/// Nothing runs there, and a stack is about to be taken: frames may have been left without return, and memory that SP has left is out of
/// bounds to tools.
pub(super) fn is_free(low: usize, high: usize) {
    is_blank(low, high);
    asan::is_free(low, high);
}

/// C is about to go on at `system_sp`. Memcheck follows SP within a stack only: what is pushed first after a switch, below the red zone of
/// the frame that left the stack, would be a write out of bounds to it.
#[inline(always)]
pub(super) fn c_goes_on(system_sp: usize) {
    #[cold]
    fn tell(system_sp: usize) {
        is_blank(system_sp - 2 * size_of::<usize>(), system_sp);
    }
    if MEMCHECK.load(Relaxed) {
        tell(system_sp);
    }
}

/// The words among frames of whatever functions. What is between their variables is out of bounds to AddressSanitizer; what they have not
/// written yet, unknown to Memcheck.
///
/// # Safety
/// They are aligned, and can be read for as long as this is used.
pub(crate) unsafe fn words(from: usize, to: usize) -> impl Iterator<Item = usize> {
    const WORD: usize = size_of::<usize>();
    const RUNNING_ON_VALGRIND: usize = 0x1001;
    const MAKE_MEM_DEFINED: usize = ((b'M' as usize) << 24 | (b'C' as usize) << 16) + 2;
    let valgrind = stackbounds::valgrind([RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0]) != 0;
    let addresses = (from..to.saturating_sub(WORD - 1)).step_by(WORD);
    addresses.filter(|&address| !asan::is_out_of_bounds(address)).map(move |address| {
        // SAFETY: the caller's promise; it may hold anything.
        let word = Cell::new(unsafe { (address as *const usize).read_volatile() });
        if valgrind {
            stackbounds::valgrind([MAKE_MEM_DEFINED, word.as_ptr() as usize, WORD, 0, 0, 0]);
        }
        word.get()
    })
}

/// A coroutine is about to be put on the stack.
pub(super) fn coroutine_made(stack: &Control) {
    if MEMCHECK.load(Relaxed) {
        is_blank(stack.low.get(), stack.base());
    }
    asan::coroutine_made(stack);
}

#[cfg(feature = "sanitizer")]
mod asan {
    use std::cell::Cell;

    use corosensei::stack::Stack;
    use stackbounds::stack_pointer;

    use super::super::{Control, control_at};

    unsafe extern "C" {
        fn __sanitizer_start_switch_fiber(variables: *mut usize, low: usize, size: usize);
        fn __sanitizer_finish_switch_fiber(variables: usize, low: *mut usize, size: *mut usize);
        fn __asan_unpoison_memory_region(low: usize, size: usize);
        fn __asan_region_is_poisoned(low: usize, size: usize) -> usize;
        fn __lsan_register_root_region(low: *const u8, size: usize);
    }

    pub fn is_root(low: *const u8, size: usize) {
        // SAFETY: the memory stays mapped and readable.
        unsafe { __lsan_register_root_region(low, size) };
    }

    /// Nothing runs there, and frames may have been left without return: nothing is out of bounds any more.
    pub fn is_free(low: usize, high: usize) {
        // SAFETY: it is said of our own stacks only.
        unsafe { __asan_unpoison_memory_region(low, high - low) };
    }

    /// Whether some of the word is.
    pub fn is_out_of_bounds(word: usize) -> bool {
        // SAFETY: has no precondition.
        unsafe { __asan_region_is_poisoned(word, size_of::<usize>()) != 0 }
    }

    /// A stack that was left, or is to be entered.
    pub struct Left {
        variables: Cell<usize>,
        low: Cell<usize>,
        size: Cell<usize>,
    }

    impl Left {
        pub const fn new() -> Self {
            Self { variables: Cell::new(0), low: Cell::new(0), size: Cell::new(0) }
        }

        /// Notes a stack on which nothing runs.
        fn is_free(&self, low: usize, base: usize) {
            is_free(low, base);
            self.low.set(low);
            self.size.set(base - low);
        }

        /// The stack that this is from now on about is about to be left for `to`.
        fn leave_for(&self, to: &Left) {
            // SAFETY: the switch follows, and the place is this one's.
            unsafe { __sanitizer_start_switch_fiber(self.variables.as_ptr(), to.low.get(), to.size.get()) };
        }

        /// The stack that this is about was entered, from the one that `from` is about.
        fn enter_from(&self, from: &Left) {
            // SAFETY: the switch has been made, and the place is the stack's: its bounds were given when it was left for.
            unsafe {
                __sanitizer_finish_switch_fiber(self.variables.get(), from.low.as_ptr(), from.size.as_ptr())
            };
        }
    }

    /// What a stack's Control keeps.
    pub struct Told {
        /// The stack itself, while nothing runs on it.
        free: Left,
        /// Where the coroutine on it is suspended: there, or on the last of its further stacks.
        suspended: Left,
        /// Who resumed that, and where downcalls go: each in the frame that left there, which waits.
        resumer: Cell<Option<&'static Left>>,
        system: Cell<Option<&'static Left>>,
    }

    impl Told {
        /// What `last`, the Control that an idle stack had, or null, knows of the stack.
        ///
        /// # Safety
        /// It is as its last user left it.
        pub unsafe fn of_idle(last: *const Control) -> Self {
            let told = Self {
                free: Left::new(),
                suspended: Left::new(),
                resumer: Cell::new(None),
                system: Cell::new(None),
            };
            // SAFETY: the caller's promise.
            if let Some(last) = unsafe { last.as_ref() } {
                told.free.variables.set(last.told.free.variables.get());
            }
            told
        }

        /// Downcalls go where `other`'s go.
        pub fn follow(&self, other: &Told) {
            self.system.set(other.system.get());
        }

        fn resumer(&self) -> &Left {
            self.resumer.get().expect("a coroutine that runs was resumed")
        }
    }

    /// # Safety
    /// What is made of it is used only while the frame waits that has `left`.
    unsafe fn in_frame(left: &Left) -> &'static Left {
        // SAFETY: the caller's promise.
        unsafe { &*std::ptr::from_ref(left) }
    }

    struct AtEnd<F: FnMut()>(F);

    impl<F: FnMut()> Drop for AtEnd<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    fn on_stack(here: &Left, there: &Left, stack: impl Stack, f: impl FnOnce()) {
        here.leave_for(there);
        let _back = AtEnd(|| here.enter_from(there));
        corosensei::on_stack(stack, || {
            there.enter_from(here);
            let _back = AtEnd(|| there.leave_for(here));
            f();
        });
    }

    pub fn on_pooled(control: &Control, beneath: bool, stack: impl Stack, f: impl FnOnce()) {
        let (here, told) = (Left::new(), &control.told);
        told.free.is_free(control.low.get(), control.base());
        // SAFETY: `here` is in the frame that waits for what runs on the stack.
        told.system.set(Some(unsafe { in_frame(&here) }));
        if let Some(beneath) = control_at(stack_pointer()).filter(|_| beneath) {
            told.follow(&beneath.told);
        }
        on_stack(&here, &told.free, stack, f);
    }

    pub fn on_system(stack: impl Stack, f: impl FnOnce()) {
        let from =
            control_at(stack_pointer()).expect("upcall: the system stack is left for from a pooled stack");
        let there = from.told.system.get().expect("upcall: a pooled stack in use was entered");
        on_stack(&Left::new(), there, stack, f);
    }

    pub fn on_block(left: &Left, low: usize, stack: impl Stack, f: impl FnOnce()) {
        left.is_free(low, stack.base().get());
        on_stack(&Left::new(), left, stack, f);
    }

    /// The coroutine on the stack is resumed by `resume`.
    pub fn resumed<R>(stack: &Control, resume: impl FnOnce() -> R) -> R {
        let (here, told) = (Left::new(), &stack.told);
        // SAFETY: `here` is in the frame that waits for the coroutine to be suspended.
        let from = Some(unsafe { in_frame(&here) });
        told.resumer.set(from);
        told.system.set(from);
        if let Some(beneath) = control_at(stack_pointer()).filter(|_| stack.beneath_resumer.get() != 0) {
            told.follow(&beneath.told);
        }
        here.leave_for(&told.suspended);
        let result = resume();
        here.enter_from(&told.suspended);
        result
    }

    pub fn coroutine_made(stack: &Control) {
        let told = &stack.told;
        told.free.is_free(stack.low.get(), stack.base());
        told.suspended.low.set(told.free.low.get());
        told.suspended.size.set(told.free.size.get());
    }

    /// Its first frame is there.
    pub fn coroutine_begins(stack: &Control) {
        stack.told.free.enter_from(stack.told.resumer());
    }

    /// Its last frame is about to go.
    pub fn coroutine_ends(stack: &Control) {
        stack.told.free.leave_for(stack.told.resumer());
    }

    /// It is suspended by `suspend`.
    pub fn suspended<R>(stack: &Control, suspend: impl FnOnce() -> R) -> R {
        let here = Left::new();
        here.leave_for(stack.told.resumer());
        let resumed = suspend();
        here.enter_from(stack.told.resumer());
        resumed
    }
}

#[cfg(not(feature = "sanitizer"))]
mod asan {
    use corosensei::stack::Stack;

    use super::super::Control;

    pub fn is_root(_low: *const u8, _size: usize) {}

    pub fn is_free(_low: usize, _high: usize) {}

    pub fn is_out_of_bounds(_word: usize) -> bool {
        false
    }

    pub struct Left;

    impl Left {
        pub const fn new() -> Self {
            Self
        }
    }

    pub struct Told;

    impl Told {
        /// # Safety
        /// None is needed.
        pub unsafe fn of_idle(_last: *const Control) -> Self {
            Self
        }

        pub fn follow(&self, _other: &Told) {}
    }

    #[inline(always)]
    pub fn on_pooled(_control: &Control, _beneath: bool, stack: impl Stack, f: impl FnOnce()) {
        corosensei::on_stack(stack, f);
    }

    #[inline(always)]
    pub fn on_system(stack: impl Stack, f: impl FnOnce()) {
        corosensei::on_stack(stack, f);
    }

    #[inline(always)]
    pub fn on_block(_left: &Left, _low: usize, stack: impl Stack, f: impl FnOnce()) {
        corosensei::on_stack(stack, f);
    }

    #[inline(always)]
    pub fn resumed<R>(_stack: &Control, resume: impl FnOnce() -> R) -> R {
        resume()
    }

    #[inline(always)]
    pub fn coroutine_made(_stack: &Control) {}

    #[inline(always)]
    pub fn coroutine_begins(_stack: &Control) {}

    #[inline(always)]
    pub fn coroutine_ends(_stack: &Control) {}

    #[inline(always)]
    pub fn suspended<R>(_stack: &Control, suspend: impl FnOnce() -> R) -> R {
        suspend()
    }
}

#[cfg(upcall_tsan)]
mod tsan {
    use std::ffi::c_void;

    unsafe extern "C" {
        fn __tsan_get_current_fiber() -> *mut c_void;
        fn __tsan_create_fiber(flags: u32) -> *mut c_void;
        fn __tsan_destroy_fiber(fiber: *mut c_void);
        fn __tsan_switch_to_fiber(fiber: *mut c_void, flags: u32);
    }

    /// A coroutine.
    pub struct Fiber(*mut c_void);

    impl Fiber {
        pub fn new() -> Self {
            // SAFETY: has no precondition.
            Self(unsafe { __tsan_create_fiber(0) })
        }

        /// Does what `resume` does as this fiber. Inlined, for it must see as many calls as returns on each side.
        #[inline(always)]
        pub fn run<R>(&self, resume: impl FnOnce() -> R) -> R {
            // SAFETY: there are a current fiber, and this one, and `resume` does not unwind: a coroutine catches its panics.
            unsafe {
                let resumer = __tsan_get_current_fiber();
                __tsan_switch_to_fiber(self.0, 0);
                let result = resume();
                __tsan_switch_to_fiber(resumer, 0);
                result
            }
        }
    }

    impl Drop for Fiber {
        fn drop(&mut self) {
            // SAFETY: made by `new`; the coroutine has ended or not begun.
            unsafe { __tsan_destroy_fiber(self.0) };
        }
    }
}

#[cfg(not(upcall_tsan))]
mod tsan {
    pub struct Fiber;

    impl Fiber {
        #[inline(always)]
        pub fn new() -> Self {
            Self
        }

        #[inline(always)]
        pub fn run<R>(&self, resume: impl FnOnce() -> R) -> R {
            resume()
        }
    }
}
