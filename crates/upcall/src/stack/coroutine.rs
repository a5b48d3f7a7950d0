//! A coroutine: code on a pooled stack that can be left in the middle and returned to. The only use of corosensei's `Coroutine`.
//!
//! Rule: **a coroutine's frames know where they are only through its [`Running`]**, which its stack's Control leads to, so that SP decides.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::ptr;
#[cfg(feature = "runtime")]
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};

use corosensei::stack::{STACK_ALIGNMENT, Stack, StackPointer};
use corosensei::{CoroutineResult, Yielder};
use stackbounds::stack_pointer;

use super::locals::{Locals, drop_locals};
use super::pool::GUARD;
use super::{Control, names, sanitizer};
use crate::function::Function;
use crate::quiet::Quiet;
#[cfg(feature = "tracing")]
use crate::spans::Spans;

/// Kept free below the frame that resumes: room for the frames of a resumption, which unoptimised builds do not inline.
const BELOW_RESUMER: usize = 1024;

/// What each resumption brings along: the context of the poll.
type Resume = *mut Context<'static>;

/// What the code of a coroutine has at hand while it lives; in its first frame.
pub(crate) struct Running {
    yielder: *const Yielder<Resume, ()>,
    /// What the coroutine was resumed with last: good until it is suspended.
    context: Cell<Resume>,
    /// The innermost poll that a wait of its makes and that has not returned, or null.
    polling: Cell<*const Polling>,
    /// How often it was suspended.
    pub suspensions: Cell<usize>,
    stack: &'static Control,
    pub name: Option<Box<str>>,
    /// The stacks that its code has continued on, linked by `next`. What is the system stack is said to them too.
    further: Cell<*const Control>,
    /// The coroutine is to end: its next wait raises [`Cancelled`], if it is not shielded.
    pub cancelled: Cell<bool>,
    /// How many of its frames wait for something that they must not be unwound before.
    pub shields: Cell<usize>,
    /// Cancelled, and C frames of its have yet to return: no upcall is let in.
    pub refuses: Cell<bool>,
    /// Whether the thread was panicking when the coroutine was resumed, and whether it has been unwound since it was cancelled.
    among_panics: Cell<bool>,
    unwinds_cancelled: Cell<bool>,
    /// How many of its polls are in the context of a runtime that was entered for them, which is the thread's; and one more if nobody will resume it.
    pub entered: Cell<usize>,
    pub locals: RefCell<Locals>,
    #[cfg(feature = "tracing")]
    pub spans: Spans,
    #[cfg(feature = "runtime")]
    pub executor: ForExecutor,
}

/// A poll that a wait of a coroutine makes, for as long as it is in progress. Its waker is that of the coroutine's own poll: a copy that
/// counts for nothing, unless the coroutine is suspended meanwhile, by a wait inside.
pub(crate) struct Polling {
    fiber: &'static Running,
    waker: ManuallyDrop<Waker>,
    owns: Cell<bool>,
    outer: *const Polling,
}

impl Polling {
    /// # Safety
    /// [`begin`](Self::begin) is called where it stays until it is dropped, before the coroutine is suspended.
    #[inline(always)]
    pub unsafe fn new(fiber: &'static Running) -> Self {
        // SAFETY: the context is good until the coroutine is suspended, before which `keep_wakers` makes the copy count.
        let waker = unsafe { ptr::read((*fiber.context.get()).waker()) };
        let outer = fiber.polling.get();
        Self { fiber, waker: ManuallyDrop::new(waker), owns: Cell::new(false), outer }
    }

    #[inline(always)]
    pub fn begin(&self) -> &Waker {
        self.fiber.polling.set(self);
        &self.waker
    }
}

impl Drop for Polling {
    #[inline(always)]
    fn drop(&mut self) {
        self.fiber.polling.set(self.outer);
        if self.owns.get() {
            // SAFETY: dropped once, and `keep_wakers` made it count.
            unsafe { ManuallyDrop::drop(&mut self.waker) };
        }
    }
}

/// What an executor of ours keeps with a fiber.
#[cfg(feature = "runtime")]
#[derive(Default)]
pub(crate) struct ForExecutor {
    /// Where it was spawned. For others to look at when it is listed.
    pub spawned_at: Cell<Option<&'static Location<'static>>>,
    /// Its place in the list of its queue, and what takes it off before its end.
    pub next: Cell<Option<NonNull<Running>>>,
    pub previous: Cell<Option<NonNull<Running>>>,
    pub at_end: Cell<Option<fn(&Running)>>,
    /// Has it polled, for a queue that ends before its fibers.
    pub task: Cell<Option<Waker>>,
}

/// The payload that unwinds a coroutine which is dropped while it is suspended.
pub(crate) struct Cancelled;

impl Running {
    /// Where its code waits, if it is suspended.
    pub fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.stack.waits.at()
    }

    /// Leaves the coroutine for whoever resumed it, until it is resumed again.
    #[inline(always)]
    pub fn suspend(&self, at: &'static Location<'static>, future: Function) {
        if !self.polling.get().is_null() {
            self.keep_wakers();
        }
        self.stack.waits.begin(at, future);
        self.suspensions.set(self.suspensions.get().wrapping_add(1));
        #[cfg(feature = "tracing")]
        self.spans.leave();
        // SAFETY: the yielder is in the coroutine's first frame, as this `Running` is: all that runs or waits on its stack is below.
        self.context.set(sanitizer::suspended(self.stack, || unsafe { (*self.yielder).suspend(()) }));
        self.stack.waits.end();
        #[cfg(feature = "tracing")]
        self.spans.enter_again();
        self.among_panics.set(std::thread::panicking());
        // It may be resumed from elsewhere than the last time.
        if !self.further.get().is_null() {
            self.tell_further();
        }
    }

    /// Has the polls in progress own their wakers, since the context that these are from ends.
    #[cold]
    fn keep_wakers(&self) {
        let mut next = self.polling.get();
        // SAFETY: the list holds polls in progress, whose frames are alive.
        while let Some(polling) = unsafe { next.as_ref() }.filter(|polling| !polling.owns.get()) {
            std::mem::forget(Waker::clone(&polling.waker));
            polling.owns.set(true);
            next = polling.outer;
        }
    }

    /// Whether its code is being unwound, as far as is known: `panicking` is a state of the thread, which may have been panicking already. A
    /// coroutine is not suspended while it is unwound.
    #[inline(always)]
    pub fn unwinds(&self) -> bool {
        std::thread::panicking() && (!self.among_panics.get() || self.unwinds_cancelled.get())
    }

    /// Unwinds it, which is cancelled.
    pub fn raise_cancelled(&self) -> ! {
        self.refuses.set(false);
        self.unwinds_cancelled.set(true);
        resume_unwind(Box::new(Cancelled))
    }

    /// The unwinding has come to an upcall; it goes on when the C code has returned that made it, if a downcall encloses that.
    pub fn stop_unwinding(&self, goes_on: bool) {
        self.unwinds_cancelled.set(false);
        self.refuses.set(goes_on);
    }

    /// Whether `sp` is on one of its stacks, and how far out: 0 for the one that its code went on on last.
    pub fn stack_with(&self, sp: usize) -> Option<usize> {
        let mut next = self.further.get();
        let mut outwards = 0;
        // SAFETY: the list holds stacks in use by this coroutine.
        while let Some(stack) = unsafe { next.as_ref() } {
            if stack.contains(sp) {
                return Some(outwards);
            }
            outwards += 1;
            next = stack.next.get();
        }
        self.stack.contains(sp).then_some(outwards)
    }

    /// SP of who resumed it last.
    pub fn polled_at(&self) -> usize {
        self.stack.system_sp.load(Relaxed)
    }

    /// Whether its code runs, or waits for what it called.
    pub fn runs(&self) -> bool {
        self.stack.runs.get()
    }

    /// Whether this is the stack that it began on.
    pub fn began_on(&self, stack: &Control) -> bool {
        ptr::eq(self.stack, stack)
    }

    /// The stack of its that its code was on before it went on on this one.
    pub fn left_for(&self, stack: &Control) -> Option<&Control> {
        if self.began_on(stack) {
            return None;
        }
        // SAFETY: null, or a stack in use by this coroutine.
        Some(unsafe { stack.next.get().as_ref() }.unwrap_or(self.stack))
    }

    /// Says to the stacks that its code has continued on what the system stack is now.
    #[cold]
    fn tell_further(&self) {
        let system_sp = self.stack.system_sp.load(Relaxed);
        let mut next = self.further.get();
        // SAFETY: the list holds stacks in use by this coroutine.
        while let Some(stack) = unsafe { next.as_ref() } {
            if stack.follows.get() {
                stack.system_sp.store(system_sp, Relaxed);
                stack.told.follow(&self.stack.told);
            }
            next = stack.next.get();
        }
    }

    /// Notes that the coroutine's code goes on on `stack`, until [`leave`](Self::leave), and whether that's system stack is where the coroutine is resumed
    /// from.
    pub fn continue_on(&self, stack: &'static Control, follows: bool) {
        stack.fiber.set(self);
        stack.follows.set(follows);
        stack.next.set(self.further.replace(stack));
    }

    /// Notes that nothing runs any more on `stack`, nor on those that the code continued on later and has not left: C skipped the calls there by
    /// `longjmp`. These stay in use until they are found to be left.
    pub fn leave(&self, stack: &'static Control) {
        while self.take_off().is_some_and(|last| !ptr::eq(last, stack)) {}
    }

    /// Takes the stack that its code continued on last off the list.
    fn take_off(&self) -> Option<&'static Control> {
        // SAFETY: the list holds stacks in use by this coroutine.
        let last = unsafe { self.further.get().as_ref() }?;
        self.further.set(last.next.get());
        last.fiber.set(ptr::null());
        // C may have been left there, by `longjmp`.
        last.has_c.set(false);
        Some(last)
    }
}

/// What a coroutine ends with.
type Return<T> = std::thread::Result<T>;

type Inner<T> = corosensei::Coroutine<Resume, (), Return<T>, OnPooled>;

/// Bytes at the base of the stack for the `Inner`, which is as large for every `T`: kept there, a coroutine is one pointer wherever it is put.
const COROUTINE_BYTES: usize = size_of::<Inner<()>>().next_multiple_of(align_of::<Control>());

/// A coroutine that ends with a `T`, or a panic.
pub(crate) struct Coroutine<T: 'static> {
    stack: &'static Control,
    known: sanitizer::Fiber,
    inner: PhantomData<Inner<T>>,
}

struct OnPooled(&'static Control);

// SAFETY: a pooled stack has GUARD bytes of guard pages below `low`, and at least as many usable above.
unsafe impl Stack for OnPooled {
    /// corosensei asks for the base in the frame that resumes, or in one just below it.
    #[inline(always)]
    fn base(&self) -> StackPointer {
        let system_sp = match self.0.beneath_resumer.get() {
            0 => (stack_pointer() - BELOW_RESUMER) & !(STACK_ALIGNMENT - 1),
            beneath => beneath,
        };
        self.0.system_sp.store(system_sp, Relaxed);
        // SAFETY: the address of something in memory is not 0.
        unsafe { StackPointer::new_unchecked(self.0.base() - COROUTINE_BYTES) }
    }

    fn limit(&self) -> StackPointer {
        // SAFETY: the low end of a stack, its guard included, is not 0.
        unsafe { StackPointer::new_unchecked(self.0.low.get() - GUARD) }
    }
}

impl<T: 'static> Coroutine<T> {
    /// A coroutine that will run `f` on `stack`, on which `f` is kept from now on, unless it is large.
    ///
    /// # Safety
    /// The stack is taken from the pool, nothing else uses it, and it is not given back before this is dropped.
    #[inline]
    pub unsafe fn new(
        stack: &'static Control,
        name: Option<Box<str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> Self {
        // corosensei copies what it is given to the stack, and takes no more than 1024 bytes.
        const LARGE: usize = 512;
        if size_of_val(&f) > LARGE {
            // SAFETY: as for this call.
            unsafe { Self::with_small(stack, name, Box::new(f)) }
        } else {
            // SAFETY: as for this call.
            unsafe { Self::with_small(stack, name, f) }
        }
    }

    /// # Safety
    /// As for [`new`](Self::new).
    #[inline]
    unsafe fn with_small(
        stack: &'static Control,
        name: Option<Box<str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> Self {
        const {
            assert!(
                size_of::<Inner<T>>() <= COROUTINE_BYTES && align_of::<Inner<T>>() <= align_of::<Control>()
            )
        };
        // If it is never run, corosensei drops it, and could not have it panic.
        let f = Quiet::new(f);
        let body = move |yielder: &Yielder<Resume, ()>, context: Resume| {
            sanitizer::coroutine_begins(stack);
            let running = Running {
                yielder,
                context: Cell::new(context),
                polling: Cell::new(ptr::null()),
                suspensions: Cell::new(0),
                stack,
                name,
                further: Cell::new(ptr::null()),
                cancelled: Cell::new(false),
                shields: Cell::new(0),
                refuses: Cell::new(false),
                among_panics: Cell::new(std::thread::panicking()),
                unwinds_cancelled: Cell::new(false),
                entered: Cell::new(0),
                locals: RefCell::default(),
                #[cfg(feature = "tracing")]
                spans: Spans::default(),
                #[cfg(feature = "runtime")]
                executor: ForExecutor::default(),
            };
            stack.fiber.set(&running);
            if let Some(name) = &running.name {
                let _names = names::hold_lock();
                stack.name.set(name);
            }
            let result = catch_unwind(AssertUnwindSafe(|| f.into_inner()()));
            let dropped = drop_locals(&running.locals);
            #[cfg(feature = "runtime")]
            if let Some(at_end) = running.executor.at_end.get() {
                at_end(&running);
            }
            while running.take_off().is_some() {}
            if running.name.is_some() {
                let _names = names::hold_lock();
                stack.name.set(ptr::null());
            }
            stack.fiber.set(ptr::null());
            let result = match (result, dropped) {
                (Ok(value), Err(payload)) => {
                    drop(Quiet::new(value));
                    Err(payload)
                }
                (result, _) => result,
            };
            sanitizer::coroutine_ends(stack);
            result
        };
        let this = Self { stack, known: sanitizer::Fiber::new(), inner: PhantomData };
        sanitizer::coroutine_made(stack);
        // SAFETY: the stack's highest bytes are kept for this, aligned as the Control is; nobody uses them.
        unsafe { this.place().write(corosensei::Coroutine::with_stack(OnPooled(stack), body)) };
        this
    }

    #[inline(always)]
    fn place(&self) -> *mut Inner<T> {
        (self.stack.base() - COROUTINE_BYTES) as *mut Inner<T>
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: written by `new`, and gone only when this is.
        unsafe { &*self.place() }
    }

    /// Goes on with the coroutine; `None` if it is suspended again.
    #[inline(always)]
    pub fn resume(&mut self, context: &mut Context<'_>) -> Option<Return<T>> {
        struct Runs(&'static Control);
        impl Drop for Runs {
            fn drop(&mut self) {
                self.0.runs.set(false);
            }
        }
        self.stack.runs.set(true);
        let _runs = Runs(self.stack);
        // SAFETY: as in `inner`; `self` is borrowed mutably.
        let inner = unsafe { &mut *self.place() };
        let context = ptr::from_mut(context).cast();
        let result = sanitizer::resumed(self.stack, || self.known.run(|| inner.resume(context)));
        match result {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(result) => Some(result),
        }
    }

    pub fn stack(&self) -> &'static Control {
        self.stack
    }

    /// Whether it has begun.
    pub fn started(&self) -> bool {
        self.inner().started()
    }

    /// Whether it runs: code inside it asks.
    pub fn runs(&self) -> bool {
        self.stack.runs.get()
    }
}

impl<T: 'static> Drop for Coroutine<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: written by `new`, and dropped once. It has ended, or not begun: then it drops what it was to run.
        unsafe { self.place().drop_in_place() };
    }
}
