//! A coroutine: code on a pooled stack that can be suspended and resumed.
//!
//! Rule: **a coroutine's frames find their surroundings only through its [`FiberContext`].** The
//! StackHeader of their stack leads to it, so SP decides.

pub(crate) mod context;
pub(crate) mod frames;
pub(crate) mod names;
pub(crate) mod polling;
pub(crate) mod spans;

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;

use stackbounds::stack_pointer;

use context::Resume;
pub(crate) use context::{Cancelled, FiberContext};
pub(crate) use polling::Polling;

use crate::drop_guards::IgnoreDropPanic;
use crate::stack::{StackHeader, sanitizer};
use crate::sys::isa::switch::{Link, OsBounds, STACK_ALIGNMENT};
use crate::thread::exceptions::OwnExceptions;
use crate::thread::locals::drop_locals;

/// Bytes kept free below the frame of the resumer, for frames of the resumption.
///
/// Unoptimised builds do not inline these.
const BELOW_RESUMER: usize = 1024;

/// The result of a coroutine: its value, or the payload of a panic.
type Return<T> = std::thread::Result<T>;

/// The data at the base of a coroutine's stack.
///
/// Since it is there, a coroutine is one pointer, and can be moved anywhere.
///
/// ```text
///   ├──────────────┤ base of the stack = address of the StackHeader
///   │     Root     │
///   ├──────────────┤
///   │     body     │ until it is run
///   ├──────────────┤
///   │    frames    │
/// ```
#[repr(C, align(16))]
struct Root {
    link: Link,
    /// Drops the body; `None` once the body runs.
    drop_body: Cell<Option<unsafe fn(*mut Root)>>,
    /// The C++ exceptions of the coroutine while it is suspended; of its resumer while it runs.
    exceptions: OwnExceptions,
}

const _: () = assert!(align_of::<Root>() == STACK_ALIGNMENT && size_of::<Root>() % STACK_ALIGNMENT == 0);

impl Root {
    /// The root on a stack.
    fn of(stack: &StackHeader) -> *mut Root {
        (stack.base() - size_of::<Root>()) as *mut Root
    }

    /// The address of a body of type `B`, below the root.
    #[inline(always)]
    fn body<B>(root: *mut Root) -> *mut B {
        let align = if align_of::<B>() > STACK_ALIGNMENT { align_of::<B>() } else { STACK_ALIGNMENT };
        ((root as usize - size_of::<B>()) & !(align - 1)) as *mut B
    }

    /// Makes a coroutine that will run `body`.
    ///
    /// # Safety
    /// `root` is the root of an unused stack, and `body` takes a small part of the stack.
    #[inline(always)]
    unsafe fn init<T, B: FnOnce(*mut Link, Resume) -> Return<T>>(root: *mut Root, bounds: OsBounds, body: B) {
        /// Drops a body that has not run.
        ///
        /// # Safety
        /// The root was initialised with a body of type `B`, and the body has not run.
        unsafe fn drop_body<B>(root: *mut Root) {
            // SAFETY: the caller guarantees an initialised body of type `B`, not yet run or
            // dropped.
            unsafe { Root::body::<B>(root).drop_in_place() };
        }

        /// The first function of the coroutine: runs its body.
        ///
        /// The borrow check finds it by its name.
        ///
        /// # Safety
        /// Called only by the first resumption of the root.
        unsafe extern "C" fn begin_coroutine<T, B: FnOnce(*mut Link, Resume) -> Return<T>>(
            context: *mut (),
            link: *mut Link,
        ) -> ! {
            let root = link.cast::<Root>();
            // SAFETY: `init` wrote the body, and it is read once: with `drop_body` empty, nobody
            // drops it any more.
            let body = unsafe {
                (&raw mut (*root).drop_body).write(Cell::new(None));
                Root::body::<B>(root).read()
            };
            let result = catch_unwind(AssertUnwindSafe(|| body(link, context.cast())));
            let mut result = ManuallyDrop::new(result.unwrap_or_else(Err));
            // SAFETY: this code belongs to the coroutine, and `link` is the coroutine's. The
            // resumer takes the result while this frame still exists.
            unsafe { Link::finish(link, ptr::from_mut(&mut result).cast()) }
        }

        let place = Self::body::<B>(root);
        // SAFETY: the caller guarantees an unused stack with room for the body. The addresses are
        // aligned for their types.
        unsafe {
            place.write(body);
            (&raw mut (*root).drop_body).write(Cell::new(Some(drop_body::<B>)));
            (&raw mut (*root).exceptions).write(OwnExceptions::new());
            Link::init(root.cast(), place as usize, begin_coroutine::<T, B>, bounds);
        }
    }
}

/// A coroutine ending with a `T`, or a panic.
pub(crate) struct Coroutine<T: 'static> {
    stack: &'static StackHeader,
    /// The coroutine, as ThreadSanitizer knows it.
    known: sanitizer::Fiber,
    ends_with: PhantomData<fn() -> T>,
    /// A coroutine stays on its thread.
    not_send: PhantomData<*mut ()>,
}

/// The C++ exceptions of the coroutine on a stack.
#[inline(always)]
pub(super) fn exceptions_of(stack: &StackHeader) -> &OwnExceptions {
    // SAFETY: the coroutine's creation wrote the exceptions, and the coroutine is still on the
    // stack. Other fields of the root are not borrowed here.
    unsafe { &(*Root::of(stack)).exceptions }
}

impl<T: 'static> Coroutine<T> {
    /// Makes a coroutine that will run `f` on `stack`.
    ///
    /// From now on, `f` is stored on the stack, or on the heap if it is large.
    ///
    /// # Safety
    /// The stack was taken from the pool, nothing else uses it, and it is not given back before
    /// this coroutine is dropped.
    #[inline]
    pub unsafe fn new(
        stack: &'static StackHeader,
        name: Option<Box<str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> Self {
        // Keeps most of the first page free: fibers seldom need more than that.
        const LARGE: usize = 512;
        if size_of_val(&f) > LARGE {
            // SAFETY: the caller guarantees a stack in nobody else's use, not given back before the
            // coroutine is dropped.
            unsafe { Self::with_small(stack, name, Box::new(f)) }
        } else {
            // SAFETY: the caller guarantees a stack in nobody else's use, not given back before the
            // coroutine is dropped.
            unsafe { Self::with_small(stack, name, f) }
        }
    }

    /// Makes a coroutine for a small `f`, stored on the stack.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    #[inline]
    unsafe fn with_small(
        stack: &'static StackHeader,
        name: Option<Box<str>>,
        f: impl FnOnce() -> T + 'static,
    ) -> Self {
        // In case the coroutine never runs.
        let f = IgnoreDropPanic::new(f);
        let body = move |link: *mut Link, context: Resume| {
            sanitizer::coroutine_begins(stack);
            let running = FiberContext::new(stack, link, context, name);
            stack.fiber.set(ptr::from_ref(&running).cast());
            if let Some(name) = &running.name {
                let _names = names::hold_lock();
                stack.name.set(name);
            }
            let result = catch_unwind(AssertUnwindSafe(|| f.into_inner()()));
            let dropped = drop_locals(&running.locals);
            running.leave_executor();
            while running.take_off().is_some() {}
            if running.name.is_some() {
                let _names = names::hold_lock();
                stack.name.set(ptr::null());
            }
            stack.fiber.set(ptr::null());
            let result = match (result, dropped) {
                (Ok(value), Err(payload)) => {
                    drop(IgnoreDropPanic::new(value));
                    Err(payload)
                }
                (result, _) => result,
            };
            sanitizer::coroutine_ends(stack);
            // The stack may have grown.
            stack.os_bounds.note_in_use();
            result
        };
        let known = sanitizer::Fiber::new();
        sanitizer::coroutine_made(stack);
        // SAFETY: the caller guarantees an unused stack, and the body is not large.
        unsafe { Root::init(Root::of(stack), stack.os_bounds.clone(), body) };
        Self { stack, known, ends_with: PhantomData, not_send: PhantomData }
    }

    /// The function dropping the body; `None` once the body runs.
    fn drop_body(&self) -> &Cell<Option<unsafe fn(*mut Root)>> {
        // SAFETY: `new` wrote the root, and it exists as long as this coroutine. Other fields of
        // the root are not borrowed here.
        unsafe { &(*Root::of(self.stack)).drop_body }
    }

    /// Resumes the coroutine. `None` if it is suspended again.
    #[inline(always)]
    pub fn resume(&mut self, context: &mut Context<'_>) -> Option<Return<T>> {
        struct Runs(&'static StackHeader);
        impl Drop for Runs {
            fn drop(&mut self) {
                self.0.resumed_at.store(0, Relaxed);
            }
        }
        self.stack.resumed_at.store(stack_pointer(), Relaxed);
        let _runs = Runs(self.stack);
        let stack = self.stack;
        let link = Root::of(stack).cast::<Link>();
        let context = ptr::from_mut(context).cast();
        let resume = || {
            // Computed here, in the frame of the resumption, or in one just below it.
            let system_sp = match stack.beneath_resumer.get() {
                0 => {
                    // SAFETY: `new` initialised the link, and it stays on the coroutine's stack.
                    stack.system_bounds.set(unsafe { Link::resumer(link) });
                    (stack_pointer() - BELOW_RESUMER) & !(STACK_ALIGNMENT - 1)
                }
                beneath => beneath,
            };
            stack.system_sp.store(system_sp, Relaxed);
            // SAFETY: the coroutine is new or suspended: `self` is borrowed mutably, and does not
            // exist after the coroutine's end. The code of a coroutine accepts a context.
            unsafe { Link::resume(link, context) }
        };
        let exceptions = exceptions_of(stack);
        exceptions.switch();
        let result = sanitizer::resumed(stack, || self.known.run(resume)).cast::<Return<T>>();
        exceptions.switch();
        // SAFETY: a non-null result is in a frame of the coroutine, and the frame still exists. It
        // is read once.
        if result.is_null() { None } else { Some(unsafe { result.read() }) }
    }

    /// The stack of the coroutine.
    pub fn stack(&self) -> &'static StackHeader {
        self.stack
    }

    /// Whether the coroutine has begun.
    pub fn started(&self) -> bool {
        self.drop_body().get().is_none()
    }

    /// Whether the coroutine runs: the caller is inside it.
    ///
    /// Also true if C abandoned it by `longjmp`, or if its thread has ended its fibers.
    pub fn runs(&self) -> bool {
        self.stack.runs()
    }
}

impl<T: 'static> Drop for Coroutine<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(drop_body) = self.drop_body().take() {
            // SAFETY: `new` wrote this function for the body on the stack, and the body has not
            // run.
            unsafe { drop_body(Root::of(self.stack)) };
        }
    }
}
