//! Who uses a stack that its owner wants to unregister.

use std::sync::atomic::Ordering::Relaxed;

use stackbounds::{Kind, StackBounds, stack_pointer};

use crate::stack::pool::{self, Purpose};
use crate::stack::{Control, control_at};
use crate::thread::{Hot, OpenCall, record};

/// Where the caller is: SP, and the upcall that it is in, as a snapshot would show it.
pub(crate) struct Caller {
    pub sp: usize,
    pub upcall_sp: usize,
}

/// What has not returned and needs `stack`, in words: calls of any attached thread, and what else the caller's is in the middle of.
pub(crate) fn of_stack(stack: StackBounds, caller: Caller) -> Option<String> {
    let here = Hot::here();
    let mut user = None;
    record::for_each(|record| {
        if user.is_some() {
            return;
        }
        // SAFETY: a record's Hot lives as long as its thread, which cannot detach, as `for_each` says. The field is atomic.
        let current = unsafe { (*record.hot).upcall.sp() };
        let current = if std::ptr::eq(record.hot, here) { caller.upcall_sp } else { current };
        let call = || record.open_calls().find_map(|call| of_call(&stack, call));
        user = upcall(&stack, current)
            .or_else(call)
            .map(|user| format!("{user} on {}", record::describe(record.thread_id)));
    });
    user.or_else(|| left_by_rust(&stack, here, caller.sp))
}

/// Code of the calling thread that went from `from` to a stack of ours and has not come back: an upcall, whether or not a downcall of its is open, or
/// a fiber. The caller's own upcall, which was made at `sp`, does not count.
fn left_by_rust(from: &StackBounds, hot: &Hot, sp: usize) -> Option<String> {
    let idle: Vec<_> = hot.idle().map(Control::base).collect();
    let own = control_at(stack_pointer()).filter(|own| !own.contains(sp)).map(Control::base);
    let mut user = None;
    pool::for_each_taken(|stack| {
        let system_sp = stack.system_sp.load(Relaxed);
        if !from.contains(system_sp) || stack.mark.get().serial != hot.mark().serial {
            return;
        }
        // What is the system stack of a fiber that is suspended is not known before it is resumed.
        let (is_left, who) = match stack.fiber() {
            Some(fiber) => (fiber.runs(), "a fiber"),
            None => (
                stack.purpose.get() == Purpose::Upcall
                    && !stack.seems_left.get()
                    && !idle.contains(&stack.base()),
                "an upcall (C → Rust)",
            ),
        };
        if is_left && own != Some(stack.base()) {
            user =
                Some(format!("{who} that left it at SP {system_sp:#x}, on this thread, has not come back"));
        }
    });
    user
}

fn upcall(stack: &StackBounds, sp: usize) -> Option<String> {
    stack.contains(sp).then(|| format!("an upcall (C → Rust) that was made at SP {sp:#x} has not returned"))
}

fn of_call(stack: &StackBounds, call: &OpenCall) -> Option<String> {
    let (rust_sp, upcall_sp) = (call.rust_sp(), call.upcall.sp());
    if stack.contains(rust_sp) {
        return Some(format!("a downcall (Rust → C) that was made at SP {rust_sp:#x} has not returned"));
    }
    let mut on_fiber = true;
    let c_sp = call.c_sp(|rust_sp| {
        on_fiber = false;
        // The system stack is where the upcall came from, unless it came from a fiber.
        let known = upcall_sp != 0 && stackbounds::described(upcall_sp).kind != Kind::Slot;
        if known { None } else { pool::system_sp_at(rust_sp) }
    });
    // A fiber that is suspended in a call on its own stack is not in the upcall that once resumed it.
    match upcall(stack, upcall_sp) {
        Some(user) if !on_fiber => Some(user),
        _ => stack
            .contains(c_sp)
            .then(|| format!("a downcall (Rust → C) whose C code began at SP {c_sp:#x} has not returned")),
    }
}
