//! Upcalls, downcalls and waits as spans of the `tracing` crate, with the feature of that name; without it, nothing.
//!
//! A span is entered for as long as the code in it runs: a fiber that is suspended leaves the spans that its code is in, the innermost first, and
//! enters them again when it goes on. Where the host switches stacks, nobody is told, so spans of suspended calls on its coroutines stay entered.

use std::panic::Location;

use crate::function::Function;

#[cfg(feature = "tracing")]
pub(crate) use enabled::{Entered, Spans};

#[cfg(feature = "tracing")]
mod enabled {
    use std::cell::RefCell;

    use stackbounds::stack_pointer;
    use tracing::Span;

    use crate::stack::coroutine::Running;
    use crate::thread::Hot;

    /// The spans that a fiber's code is in, the innermost last.
    #[derive(Default)]
    pub(crate) struct Spans(RefCell<Vec<Span>>);

    impl Spans {
        /// The fiber is about to be suspended.
        pub fn leave(&self) {
            self.0.borrow().iter().rev().for_each(exit);
        }

        /// It goes on.
        pub fn enter_again(&self) {
            self.0.borrow().iter().for_each(enter);
        }
    }

    fn enter(span: &Span) {
        span.with_subscriber(|(id, dispatch)| dispatch.enter(id));
    }

    fn exit(span: &Span) {
        span.with_subscriber(|(id, dispatch)| dispatch.exit(id));
    }

    /// A span that code is in until this is dropped.
    pub(crate) struct Entered {
        span: Span,
        fiber: Option<&'static Running>,
    }

    impl Entered {
        pub fn new(span: Span) -> Self {
            enter(&span);
            let fiber = Hot::here().fiber_at(stack_pointer());
            if let Some(fiber) = fiber {
                fiber.spans.0.borrow_mut().push(span.clone());
            }
            Self { span, fiber }
        }
    }

    impl Drop for Entered {
        fn drop(&mut self) {
            if let Some(fiber) = self.fiber {
                // Those that `longjmp` left, further in, go with it.
                let mut spans = fiber.spans.0.borrow_mut();
                let place = spans.iter().rposition(|span| span.id() == self.span.id());
                let place = place.unwrap_or(spans.len());
                let left = spans.split_off(place);
                drop(spans);
                left.iter().skip(1).rev().for_each(exit);
            }
            exit(&self.span);
        }
    }
}

/// What a [`Slot`](crate::crossing) runs.
pub(crate) trait What {
    #[inline(always)]
    fn run<R>(_function: Function, f: impl FnOnce() -> R) -> R {
        f()
    }
}

/// Code that has no span of its own.
pub(crate) struct Plain;

impl What for Plain {}

/// The Rust code of an upcall.
pub(crate) struct UpcallBody;

impl What for UpcallBody {
    #[cfg(feature = "tracing")]
    fn run<R>(function: Function, f: impl FnOnce() -> R) -> R {
        let _span =
            Entered::new(tracing::trace_span!(target: "upcall", "upcall", function = function.name()));
        f()
    }
}

/// The span of a downcall that the code of `function` makes, for as long as the value is kept.
#[cfg(feature = "tracing")]
pub(crate) fn downcall(function: Function) -> Entered {
    Entered::new(tracing::trace_span!(target: "upcall", "downcall", function = function.name()))
}

/// The span of a wait for a future.
#[cfg(feature = "tracing")]
pub(crate) fn wait(future: Function, at: &Location<'_>) -> Entered {
    Entered::new(tracing::trace_span!(target: "upcall", "wait", future = future.name(), at = %at))
}

/// No span.
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
