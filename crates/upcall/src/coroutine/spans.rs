//! Upcalls, downcalls and waits as spans of the `tracing` crate. Without the feature `tracing`,
//! nothing.
//!
//! A span is entered for as long as its code runs. A fiber leaves its code's spans before it is
//! suspended, the innermost first, and enters them again when it is resumed. If a subscriber
//! panics, or no longer exists, only the trace changes. Nobody tells us when the host switches
//! stacks, so spans of suspended calls on a host's coroutines stay entered.

use std::panic::Location;

use crate::function::Function;

#[cfg(feature = "tracing")]
pub(crate) use enabled::{Entered, Spans};

#[cfg(feature = "tracing")]
mod enabled {
    use std::cell::{Cell, RefCell};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use stackbounds::stack_pointer;
    use tracing::Span;

    use crate::coroutine::FiberContext;
    use crate::drop_guards::IgnoreDropPanic;
    use crate::messages::warn;
    use crate::thread::ThreadState;

    /// The entered spans of a fiber's code, the innermost last.
    #[derive(Default)]
    pub(crate) struct Spans(RefCell<Vec<Span>>);

    impl Spans {
        /// Exits all spans: the fiber is about to be suspended.
        pub fn leave(&self) {
            self.each(|spans| spans.iter().rev().for_each(exit));
        }

        /// Enters all spans again: the fiber is resumed.
        pub fn enter_again(&self) {
            self.each(|spans| spans.iter().for_each(enter));
        }

        fn each(&self, tell: impl FnOnce(&[Span])) {
            if let Ok(spans) = self.0.try_borrow() {
                tell(&spans);
            }
        }
    }

    thread_local! {
        /// Whether a call of the subscriber is in progress. No spans are made inside it.
        static TELLS: Cell<bool> = const { Cell::new(false) };
        /// Its destructor runs with those of the thread's variables, before the subscriber's.
        static ALIVE: Alive = const { Alive };
        /// Whether the thread's variables are gone.
        static GONE: Cell<bool> = const { Cell::new(false) };
    }

    struct Alive;

    impl Drop for Alive {
        fn drop(&mut self) {
            GONE.set(true);
        }
    }

    /// Calls the subscriber. Returns `None` if it panics, or if a call of it is in progress.
    ///
    /// A subscriber may be anybody's code: it may panic, call us, or use variables of the thread
    /// after their end. Rule: **whether code runs, and its result, are the same with a subscriber
    /// as without.**
    fn tell<R>(call: impl FnOnce() -> R) -> Option<R> {
        if TELLS.replace(true) {
            return None;
        }
        // Waits of the subscriber block the thread, since the fiber may be about to be suspended.
        let fiber = ThreadState::current().fiber_at(stack_pointer());
        let entered = fiber.map(FiberContext::enter);
        let result = catch_unwind(AssertUnwindSafe(call));
        drop(entered);
        TELLS.set(false);
        result.map_err(|payload| panicked(IgnoreDropPanic::new(payload))).ok()
    }

    /// Reports the first panic of a subscriber.
    #[cold]
    fn panicked<T>(_payload: IgnoreDropPanic<T>) {
        static REPORTED: AtomicBool = AtomicBool::new(false);
        if !REPORTED.swap(true, Relaxed) {
            warn(
                "the tracing subscriber panicked (the message of the panic is above) when it was told of a span of upcall's: the call goes on, the span may be \
                 missing. Later panics of it are not reported",
            );
        }
    }

    fn enter(span: &Span) {
        span.with_subscriber(|(id, dispatch)| tell(|| dispatch.enter(id)));
    }

    fn exit(span: &Span) {
        span.with_subscriber(|(id, dispatch)| tell(|| dispatch.exit(id)));
    }

    /// A span, entered until this is dropped. Empty if the subscriber makes no span.
    pub(crate) struct Entered {
        _inside: Option<Inside>,
    }

    /// An entered span, and its fiber.
    struct Inside {
        span: Span,
        fiber: Option<&'static FiberContext>,
    }

    impl Entered {
        /// Makes a span and enters it.
        pub fn new(span: impl FnOnce() -> Span) -> Self {
            // A thread whose variables are gone has no subscriber to call.
            if GONE.get() {
                return Self { _inside: None };
            }
            let span = tell(span).filter(|span| !span.is_none());
            let Some(span) = span else { return Self { _inside: None } };
            // A separate call: if cloning panicked in the first one, its unwinding would drop the
            // span and so call the subscriber again.
            let Some(listed) = tell(|| span.clone()) else {
                close(span);
                return Self { _inside: None };
            };
            enter(&span);
            let fiber = ThreadState::current().fiber_at(stack_pointer());
            match fiber.map(|fiber| fiber.spans.0.try_borrow_mut()) {
                Some(Ok(mut spans)) => spans.push(listed),
                _ => close(listed),
            }
            // Registered after the subscriber's variables, so its destructor runs before theirs.
            let _ = ALIVE.try_with(|_| ());
            Self { _inside: Some(Inside { span, fiber }) }
        }
    }

    /// Drops a span and tells the subscriber.
    fn close(span: Span) {
        let mut span = IgnoreDropPanic::new(Some(span));
        // Inside another call of the subscriber, `IgnoreDropPanic` drops the span instead.
        tell(|| drop(span.take()));
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            if let Some(mut spans) = self.fiber.and_then(|fiber| fiber.spans.0.try_borrow_mut().ok()) {
                // Ends the spans further in, too: `longjmp` abandoned their code.
                let place = spans.iter().rposition(|span| span.id() == self.span.id());
                let place = place.unwrap_or(spans.len());
                let abandoned = spans.split_off(place);
                drop(spans);
                abandoned.iter().skip(1).rev().for_each(exit);
                abandoned.into_iter().for_each(close);
            }
            exit(&self.span);
            close(std::mem::replace(&mut self.span, Span::none()));
        }
    }
}

/// The kind of span for the code of a [`Thunk`](crate::crossing).
pub(crate) trait SpanKind {
    /// Runs `f` inside a span of this kind, if it has one.
    #[inline(always)]
    fn run<R>(_function: Function, f: impl FnOnce() -> R) -> R {
        f()
    }
}

/// Code without a span of its own.
pub(crate) struct NoSpan;

impl SpanKind for NoSpan {}

/// The Rust code of an upcall, with a span.
pub(crate) struct UpcallSpan;

impl SpanKind for UpcallSpan {
    #[cfg(feature = "tracing")]
    fn run<R>(function: Function, f: impl FnOnce() -> R) -> R {
        let _span =
            Entered::new(|| tracing::trace_span!(target: "upcall", "upcall", function = function.name()));
        f()
    }
}

/// The span of a downcall made by the code of `function`. It lasts as long as the value.
#[cfg(feature = "tracing")]
pub(crate) fn downcall(function: Function) -> Entered {
    Entered::new(|| tracing::trace_span!(target: "upcall", "downcall", function = function.name()))
}

/// The span of a wait for a future. It lasts as long as the value.
#[cfg(feature = "tracing")]
pub(crate) fn wait(future: Function, at: &Location<'_>) -> Entered {
    Entered::new(|| tracing::trace_span!(target: "upcall", "wait", future = future.name(), at = %at))
}

/// Stands for a span in builds without the feature `tracing`.
#[cfg(not(feature = "tracing"))]
pub(crate) struct Entered;

#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn downcall(_: Function) -> Entered {
    Entered
}

#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn wait(_: Function, _: &Location<'_>) -> Entered {
    Entered
}
