//! The context of a coroutine's code: its stacks, polls, cancellation and variables.

use std::cell::{Cell, RefCell};
use std::panic::{Location, resume_unwind};
use std::ptr;
#[cfg(feature = "runtime")]
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::compiler_fence;
use std::task::Context;
#[cfg(feature = "runtime")]
use std::task::Waker;

use stackbounds::stack_pointer;

use super::exceptions_of;
use super::frames::Frames;
use super::polling::Counted;
#[cfg(feature = "tracing")]
use super::spans::Spans;
use crate::function::Function;
use crate::published::CurrentUpcall;
use crate::stack::{CStays, StackHeader, mend_os_bounds, sanitizer};
use crate::sys::isa::switch::Link;
use crate::thread::ThreadState;
use crate::thread::locals::Locals;

/// The argument of each resumption: the context of the poll.
pub(super) type Resume = *mut Context<'static>;

/// The state of a coroutine that has begun and not ended. It is in the coroutine's first frame.
pub(crate) struct FiberContext {
    link: *mut Link,
    /// The argument of the last resumption. Valid until the coroutine is suspended.
    pub(super) context: Cell<Resume>,
    /// The unfinished polls made by its waits.
    pub(super) polls: Frames,
    /// How often the coroutine was suspended.
    pub suspensions: Cell<usize>,
    /// A number for the place of the last suspension found to be outside `Once`. See
    /// `fiber::initialiser`.
    pub outside: Cell<usize>,
    /// The stack on which the coroutine began.
    stack: &'static StackHeader,
    pub name: Option<Box<str>>,
    /// The extension stacks on which its code has continued, the newest first, linked by `next`.
    ///
    /// They are told where the system stack is, too.
    extensions: Cell<*const StackHeader>,
    /// The coroutine is to end: its next wait raises [`Cancelled`], unless it is shielded.
    pub cancelled: Cell<bool>,
    /// Frames that wait for something and must not be unwound before it has happened.
    shields: Frames,
    /// The coroutine is cancelled, but C frames of it have yet to return. Until then it refuses
    /// upcalls.
    pub refuses: Cell<bool>,
    /// Whether the thread was panicking when the coroutine was resumed.
    among_panics: Cell<bool>,
    /// Whether a [`Cancelled`] payload is unwinding the coroutine.
    unwinds_cancelled: Cell<bool>,
    /// Frames whose waits block the thread.
    ///
    /// These are polls in the context of a runtime entered for them, since the context belongs to
    /// the thread; calls of the `tracing` subscriber; and sections of `without_sigpipe`.
    entered: Frames,
    /// Nobody will resume the coroutine.
    pub abandoned: Cell<bool>,
    pub locals: RefCell<Locals>,
    /// The last message for C code on the fiber's stacks. See `crossing::last_message`.
    pub last_message: RefCell<Option<String>>,
    #[cfg(feature = "tracing")]
    pub spans: Spans,
    #[cfg(feature = "runtime")]
    pub executor: ForExecutor,
}

/// An executor's data about a fiber.
#[cfg(feature = "runtime")]
#[derive(Default)]
pub(crate) struct ForExecutor {
    /// The place of the spawn. Others read it while the fiber is listed.
    pub spawned_at: Cell<Option<&'static Location<'static>>>,
    /// The fiber's neighbours in the list of its queue.
    pub next: Cell<Option<NonNull<FiberContext>>>,
    pub previous: Cell<Option<NonNull<FiberContext>>>,
    /// Removes the fiber from the list before its end.
    pub at_end: Cell<Option<fn(&FiberContext)>>,
    /// Has the fiber polled, for a queue that ends before its fibers.
    pub task: Cell<Option<Waker>>,
}

/// The payload that unwinds a coroutine dropped while suspended.
pub(crate) struct Cancelled;

impl FiberContext {
    /// The context of a coroutine beginning on `stack`, resumed with `context`.
    #[inline(always)]
    pub(super) fn new(
        stack: &'static StackHeader,
        link: *mut Link,
        context: Resume,
        name: Option<Box<str>>,
    ) -> Self {
        FiberContext {
            link,
            context: Cell::new(context),
            polls: Frames::new(),
            suspensions: Cell::new(0),
            outside: Cell::new(0),
            stack,
            name,
            extensions: Cell::new(ptr::null()),
            cancelled: Cell::new(false),
            shields: Frames::new(),
            refuses: Cell::new(false),
            among_panics: Cell::new(std::thread::panicking()),
            unwinds_cancelled: Cell::new(false),
            entered: Frames::new(),
            abandoned: Cell::new(false),
            locals: RefCell::default(),
            last_message: RefCell::new(None),
            #[cfg(feature = "tracing")]
            spans: Spans::default(),
            #[cfg(feature = "runtime")]
            executor: ForExecutor::default(),
        }
    }

    /// Whether an executor of ours polls the coroutine, with this waker.
    #[cfg(feature = "runtime")]
    pub fn is_woken_by(&self, waker: &Waker) -> bool {
        // SAFETY: the context is valid until the coroutine is suspended, and the coroutine's own
        // code calls this.
        self.stack.is_tasks.get() && unsafe { (*self.context.get()).waker() }.will_wake(waker)
    }

    /// Whether a poll made by a wait of the coroutine's code is in progress.
    #[cfg_attr(upcall_loom, allow(dead_code, reason = "loom's models have no fibers"))]
    pub fn is_in_poll(&self) -> bool {
        self.polls.count() != 0
    }

    /// The place of the coroutine's wait, if it is suspended.
    pub fn waits_at(&self) -> Option<&'static Location<'static>> {
        self.stack.waits.at()
    }

    /// Suspends the coroutine until it is resumed. `at` and `future` describe the wait.
    ///
    /// `upcall` is the upcall of the coroutine's code.
    #[inline(always)]
    pub fn suspend(&self, at: &'static Location<'static>, future: Function, upcall: CurrentUpcall) {
        if self.polls.count() != 0 {
            self.keep_wakers();
        }
        self.stack.waits.begin(at, future);
        self.stack.upcall.set(upcall);
        self.suspensions.set(self.suspensions.get().wrapping_add(1));
        #[cfg(feature = "tracing")]
        self.spans.leave();
        mend_os_bounds(stack_pointer());
        // SAFETY: the coroutine's own code calls this, and `link` is the coroutine's.
        let context =
            sanitizer::suspended(self.stack, || unsafe { Link::suspend(self.link, ptr::null_mut()) });
        self.context.set(context.cast());
        self.stack.waits.end();
        #[cfg(feature = "tracing")]
        self.spans.enter_again();
        self.among_panics.set(std::thread::panicking());
        // The resumer may be at another place than the last time.
        if !self.extensions.get().is_null() {
            self.tell_extensions();
        }
    }

    /// Prepares for a call of C on one of the coroutine's stacks.
    #[inline(always)]
    pub fn c_comes(&self) {
        exceptions_of(self.stack).c_comes();
    }

    /// Makes the polls in progress own their wakers, before the context with these wakers ends.
    ///
    /// C may have abandoned some of the polls, and overwritten their frames. So no frame is read.
    #[cold]
    fn keep_wakers(&self) {
        let sp = stack_pointer();
        let live = self.polls.live(|frame| self.is_abandoned(frame, sp));
        for frame in (0..live).rev().map(|number| self.polls.get(number)) {
            if frame.suspensions != self.suspensions.get() {
                break;
            }
            // SAFETY: the context is valid until the coroutine is suspended, and the poll began
            // after the last resumption.
            std::mem::forget(unsafe { (*self.context.get()).waker() }.clone());
        }
    }

    /// Whether C abandoned the fiber's frame at `frame`, for a caller at `sp`, on one of its
    /// stacks.
    ///
    /// If `frame` is further in than the running code, it is abandoned.
    #[inline(always)]
    pub fn is_abandoned(&self, frame: usize, sp: usize) -> bool {
        if self.extensions.get().is_null() { frame < sp } else { self.is_abandoned_across_stacks(frame, sp) }
    }

    #[cold]
    #[inline(never)]
    fn is_abandoned_across_stacks(&self, frame: usize, sp: usize) -> bool {
        match (self.stack_with(frame), self.stack_with(sp)) {
            (Some(of), Some(at)) => of < at || of == at && frame < sp,
            // Nothing is known on a coroutine of C's.
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Keeps the calling function from being unwound by the fiber's drop, until the result is
    /// dropped.
    #[inline(always)]
    pub fn shield(&self) -> Counted<'_> {
        Counted::by(self, &self.shields, stack_pointer())
    }

    /// Whether a live frame is protected by [`shield`](Self::shield).
    pub fn is_shielded(&self) -> bool {
        let sp = stack_pointer();
        self.shields.count() != 0 && self.shields.live(|frame| self.is_abandoned(frame, sp)) != 0
    }

    /// Makes waits in the calling function block the thread, until the result is dropped.
    ///
    /// The function is in the context of a runtime or of a subscriber, or has changed the thread's
    /// signal mask.
    #[inline(always)]
    pub fn enter(&self) -> Counted<'_> {
        Counted::by(self, &self.entered, stack_pointer())
    }

    /// Whether waits at `sp` block the thread, because of [`enter`](Self::enter) or because nobody
    /// will resume the coroutine.
    #[inline(always)]
    pub fn blocks(&self, sp: usize) -> bool {
        self.abandoned.get()
            || self.entered.count() != 0 && self.entered.live(|frame| self.is_abandoned(frame, sp)) != 0
    }

    /// Whether the coroutine's code is certainly being unwound.
    ///
    /// `panicking` is a state of the thread: the thread may have been panicking when the coroutine
    /// was resumed. For a cancelled coroutine the answer is exact: it was suspended, so it was not
    /// being unwound before.
    #[inline(always)]
    pub fn unwinds(&self) -> bool {
        std::thread::panicking() && (!self.among_panics.get() || self.unwinds_cancelled.get())
    }

    /// Unwinds the coroutine, which is cancelled.
    pub fn raise_cancelled(&self) -> ! {
        self.refuses.set(false);
        self.unwinds_cancelled.set(true);
        resume_unwind(Box::new(Cancelled))
    }

    /// Notes that the payload given to the coroutine's code is about to unwind it further.
    pub fn is_to_unwind(&self) {
        self.unwinds_cancelled.set(true);
    }

    /// Notes that the unwinding has reached an upcall.
    ///
    /// `goes_on`: a downcall encloses the upcall, and unwinding continues when the C code returns.
    pub fn stop_unwinding(&self, goes_on: bool) {
        self.unwinds_cancelled.set(false);
        self.refuses.set(goes_on);
    }

    /// The number of the coroutine's stack containing `sp`, counted outwards.
    ///
    /// 0 is the stack on which the code continued last. `None` if `sp` is on none of the stacks.
    pub fn stack_with(&self, sp: usize) -> Option<usize> {
        let mut next = self.extensions.get();
        let mut outwards = 0;
        // SAFETY: the list contains only stacks in use by this coroutine.
        while let Some(stack) = unsafe { next.as_ref() } {
            if stack.contains(sp) {
                return Some(outwards);
            }
            outwards += 1;
            next = stack.next.get();
        }
        self.stack.contains(sp).then_some(outwards)
    }

    /// The base of the stack on which the coroutine began.
    #[inline(always)]
    pub fn base(&self) -> usize {
        self.stack.base()
    }

    /// Removes the coroutine from its executor's list: it ends, or it never will.
    pub fn leave_executor(&self) {
        #[cfg(feature = "runtime")]
        if let Some(at_end) = self.executor.at_end.take() {
            at_end(self);
        }
    }

    /// SP below the frame of the last resumer.
    ///
    /// If the resumer is on a pooled stack, this is SP on the system stack beneath that stack.
    pub fn polled_at(&self) -> usize {
        self.stack.system_sp.load(Relaxed)
    }

    /// Bytes remaining on the coroutine's first stack; 0 if the caller is on another stack.
    #[cfg(debug_assertions)]
    pub fn room(&self) -> usize {
        let sp = stack_pointer();
        if self.stack.contains(sp) { sp - self.stack.low.get() } else { 0 }
    }

    /// Whether the coroutine's code runs, or waits for code called by it.
    pub fn runs(&self) -> bool {
        self.stack.runs()
    }

    /// Whether the coroutine began on `stack`.
    pub fn began_on(&self, stack: &StackHeader) -> bool {
        ptr::eq(self.stack, stack)
    }

    /// The coroutine's stack before its code continued on `stack`. `None` for the first stack.
    pub fn system_stack_of_extension(&self, stack: &StackHeader) -> Option<&StackHeader> {
        if self.began_on(stack) {
            return None;
        }
        // SAFETY: `next` is null, or a stack in use by this coroutine.
        Some(unsafe { stack.next.get().as_ref() }.unwrap_or(self.stack))
    }

    /// Tells the extension stacks where the system stack is now.
    #[cold]
    fn tell_extensions(&self) {
        let system_sp = self.stack.system_sp.load(Relaxed);
        let mut next = self.extensions.get();
        // SAFETY: the list contains only stacks in use by this coroutine.
        while let Some(stack) = unsafe { next.as_ref() } {
            if stack.tracks_resumer.get() {
                stack.system_sp.store(system_sp, Relaxed);
                stack.system_bounds.follow(&self.stack.system_bounds);
                stack.told.follow(&self.stack.told);
            }
            next = stack.next.get();
        }
    }

    /// Notes that the coroutine's code continues from stack `from` on `stack`, until
    /// [`leave`](Self::leave).
    ///
    /// If C frames are live on `from`, then `from` is the system stack for `stack`. Otherwise the
    /// system stack does not change: it is the resumer's, or a stack further out with C frames.
    /// In that case, whether C stays is the same on `stack` as on `from`.
    pub fn continue_on(&self, stack: &'static StackHeader, from: &StackHeader) {
        let c_stays = from.c_stays.get();
        let c_frames_live = c_stays == CStays::WithC;
        stack.fiber.set(ptr::from_ref(self).cast());
        stack.tracks_resumer.set(!c_frames_live && (self.began_on(from) || from.tracks_resumer.get()));
        stack.c_stays.set(if c_frames_live { CStays::No } else { c_stays });
        stack.next.set(self.extensions.get());
        // A signal handler that comes between finds a consistent list.
        compiler_fence(SeqCst);
        self.extensions.set(stack);
    }

    /// Notes that nothing runs on `stack` any more.
    ///
    /// Also drops the extension stacks added after it from the list: C's `longjmp` skipped the
    /// calls there. These stacks stay in use until they are found abandoned.
    pub fn leave(&self, stack: &'static StackHeader) {
        while self.take_off().is_some_and(|last| !ptr::eq(last, stack)) {}
    }

    /// Removes the newest extension stack from the list.
    pub(super) fn take_off(&self) -> Option<&'static StackHeader> {
        // SAFETY: the list contains only stacks in use by this coroutine.
        let last = unsafe { self.extensions.get().as_ref() }?;
        self.extensions.set(last.next.get());
        last.fiber.set(ptr::null());
        // C frames there may have been abandoned by `longjmp`.
        last.c_stays.set(CStays::No);
        Some(last)
    }
}

impl StackHeader {
    /// The fiber whose code is on this stack.
    ///
    /// The reference is valid as long as the caller's frame: the caller is code of the fiber, or
    /// called by it.
    #[inline(always)]
    pub fn fiber(&self) -> Option<&'static FiberContext> {
        // SAFETY: `fiber` is null, or points to a fiber that has not ended. A fiber clears it
        // before its end, here and on its extension stacks.
        unsafe { self.fiber.get().cast::<FiberContext>().as_ref() }
    }
}

impl ThreadState {
    /// The fiber whose code runs at `sp`, if there is one.
    #[inline(always)]
    pub fn fiber_at(&self, sp: usize) -> Option<&'static FiberContext> {
        self.stack_at(sp)?.fiber()
    }

    /// The innermost running fiber, wherever the thread is inside it.
    #[cfg(feature = "runtime")]
    #[inline(always)]
    pub fn running_fiber(&self) -> Option<&'static FiberContext> {
        // SAFETY: `fiber` is null, or the stack of a running fiber. That is not given back
        // meanwhile.
        unsafe { self.fiber.get().as_ref() }?.fiber()
    }
}
