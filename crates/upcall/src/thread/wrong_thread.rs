//! Detection of calls that return on the wrong thread.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::for_upcall::{RangeKind, around};
use stackbounds::stack_pointer;

use super::record::for_each;
use crate::function::Function;
use crate::messages::fatal;
use crate::stack::{StackHeader, ThreadId, header_at, registered};
use crate::sys::{os_thread_id, thread_name};

/// A call or a fiber, as messages name it.
#[derive(Clone, Copy)]
pub(crate) enum CallName {
    Upcall(Function),
    Downcall(Function),
    /// The fiber on this stack.
    Fiber(&'static StackHeader),
}

impl fmt::Display for CallName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upcall(function) => write!(out, "the upcall of {function}"),
            Self::Downcall(function) => write!(out, "the downcall of {function}"),
            Self::Fiber(stack) => match stack.fiber_name() {
                Some(name) => write!(out, "fiber \"{name}\""),
                None => write!(out, "a fiber (unnamed, on the stack below {:#x})", stack.base()),
            },
        }
    }
}

/// The name of a live thread in messages.
pub(crate) fn describe(id: usize) -> String {
    match thread_name(id) {
        Some(name) => format!("thread {id:#x} ({name})"),
        None => format!("thread {id:#x}"),
    }
}

/// Reports a call that returned on the wrong thread, and aborts.
///
/// Rule: if a call returns on another thread than it began on, upcall reports it by name and
/// aborts. `began` is the thread of its beginning.
#[cold]
#[inline(never)]
pub(crate) fn abort_on_wrong_thread(began: ThreadId, call: CallName) -> ! {
    // On a pooled stack, the host's stack is the one beneath. But C may be on a fiber's stack
    // itself, so this one is reported.
    let sp = stack_pointer();
    let sp = match header_at(sp) {
        Some(stack) if !stack.has_fiber() => stack.system_sp.load(Relaxed),
        _ => sp,
    };
    let (mut began_on, mut own_stack) = (None, None);
    for_each(|record| {
        let thread = describe(record.os_thread_id);
        // SAFETY: `for_each` keeps the record's thread from detaching, so its `ThreadState` is
        // alive. Only atomic fields are read.
        let own = unsafe { (*record.thread).own_stack() };
        if own.is_some_and(|(low, high)| (low..high).contains(&sp)) {
            own_stack = Some(format!("the own stack of {thread}"));
        }
        if record.serial == began.serial {
            began_on = Some(thread);
        }
    });
    let began_on = began_on.unwrap_or("a thread that has exited".to_owned());
    let stack = registered::described(sp).or(own_stack).unwrap_or_else(|| match around(sp) {
        Some(around) if around.kind != RangeKind::Gap => {
            format!("the stack {:#x}..{:#x}", around.low, around.high)
        }
        _ => format!("a stack around {sp:#x} that nobody described"),
    });
    fatal(format_args!(
        "{call}, which began on {began_on}, came back on {}: the host resumed {stack}, which holds Rust frames, on another thread. \
         Such a stack must be resumed on the thread that it was suspended on",
        describe(os_thread_id())
    ));
}
