//! Finds the users of a registered stack before its owner unregisters it.

use std::sync::atomic::Ordering::Relaxed;

use stackbounds::for_upcall::{RangeKind, described};
use stackbounds::{StackBounds, stack_pointer};

use crate::stack::pool::{self, Purpose};
use crate::stack::{StackHeader, header_at};
use crate::thread::{OpenCall, ThreadState, record, wrong_thread};

/// The position of the caller: SP, and SP at the entry of its upcall, as in a snapshot.
pub(crate) struct Caller {
    pub sp: usize,
    pub upcall_sp: usize,
}

/// A user of `stack`, in words: any code that has not returned and needs the stack.
///
/// It may be an open call of any attached thread; suspended code of the calling thread; or a fiber.
pub(crate) fn of_stack(stack: StackBounds, caller: Caller) -> Option<String> {
    let here = ThreadState::current();
    let mut user = None;
    record::for_each(|record| {
        if user.is_some() {
            return;
        }
        // SAFETY: a record's `ThreadState` lives as long as its thread, and the thread cannot
        // detach during `for_each`. The field is atomic.
        let current = unsafe { (*record.thread).upcall.sp() };
        let current = if std::ptr::eq(record.thread, here) { caller.upcall_sp } else { current };
        let call = || record.open_calls().find_map(|call| of_call(&stack, call));
        user = upcall(&stack, current)
            .or_else(call)
            .map(|user| format!("{user} on {}", wrong_thread::describe(record.os_thread_id)));
    });
    user.or_else(|| suspended_downcall(&stack, here, caller.sp)).or_else(|| of_fiber(&stack))
}

/// A fiber's upcall that was made on `stack`: of a suspended fiber its own, of a running one its
/// resumer's.
fn of_fiber(stack: &StackBounds) -> Option<String> {
    let mut user = None;
    pool::for_each_taken(|pooled| {
        if !pooled.fiber.get().is_null() {
            user = user.take().or_else(|| upcall(stack, pooled.upcall.sp()));
        }
    });
    user
}

/// Code of the calling thread that went from the stack `from` to a pooled stack and has not come
/// back.
///
/// It is an upcall, with or without an open downcall, or a fiber. The caller's own upcall, made at
/// `sp`, does not count.
fn suspended_downcall(from: &StackBounds, thread: &ThreadState, sp: usize) -> Option<String> {
    let idle: Vec<_> = thread.idle().map(StackHeader::base).collect();
    let own = header_at(stack_pointer()).filter(|own| !own.contains(sp)).map(StackHeader::base);
    let mut user = None;
    pool::for_each_taken(|stack| {
        let system_sp = stack.system_sp.load(Relaxed);
        if !from.contains(system_sp) || stack.owner.get().serial != thread.id().serial {
            return;
        }
        // A suspended fiber gets its system stack only when it is resumed, so it uses none now.
        let (is_away, who) = match stack.fiber() {
            Some(fiber) => (fiber.runs(), "a fiber"),
            None => (
                stack.purpose.get() == Purpose::Upcall
                    && !stack.seems_abandoned.get()
                    && !idle.contains(&stack.base()),
                "an upcall (C → Rust)",
            ),
        };
        if is_away && own != Some(stack.base()) {
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
        // The system stack is the one from which the upcall came, unless this was a fiber's.
        let known = upcall_sp != 0 && described(upcall_sp).kind != RangeKind::Slot;
        if known { None } else { pool::system_sp_at(rust_sp) }
    });
    // A fiber suspended in a call on its own stack no longer belongs to the upcall that once
    // resumed it.
    match upcall(stack, upcall_sp) {
        Some(user) if !on_fiber => Some(user),
        _ => stack
            .contains(c_sp)
            .then(|| format!("a downcall (Rust → C) whose C code began at SP {c_sp:#x} has not returned")),
    }
}
