//! A wait that suspends a coroutine of the host.

use std::panic::Location;
use std::task::Context;

use stackbounds::stack_pointer;

use super::waits::Taken;
use super::{Coroutine, Host, OWN, Resumed, host};
use crate::crossing::downcall;
use crate::fiber::interrupted::OnInterrupt;
use crate::fiber::{host_runtime, initialiser};
use crate::function::Function;
use crate::process::fork;
use crate::sync::in_own_code;
use crate::thread::{Attached, ThreadState};

/// The end of a wait on a coroutine of the host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::fiber) enum Ended {
    /// The poll returned `true`.
    Ready,
    /// The host is killing the coroutine.
    Killed,
    /// It has not ended: the wait is to block the thread.
    Blocks,
}

/// Suspends the host's running coroutine until `poll` returns `true`.
#[inline(never)]
pub(in crate::fiber) fn suspend_until(
    thread: &'static ThreadState,
    sp: usize,
    caller: &'static Location<'static>,
    future: Function,
    on_interrupt: OnInterrupt,
    poll: &mut dyn FnMut(&mut Context<'_>) -> bool,
) -> Ended {
    let Some(host) = OWN.with(host) else { return Ended::Blocks };
    if must_block(thread, sp, host) || initialiser::suspends_host_inside(thread, caller, sp) {
        return Ended::Blocks;
    }
    let _attached = Attached::new(thread, sp);
    let Some(wait) = OWN.with(|own| own.waits()?.begin(host)) else { return Ended::Blocks };
    let waker = wait.waker();
    let mut context = Context::from_waker(&waker);
    let mut coroutine = None;
    loop {
        wait.begin_poll();
        if poll(&mut context) {
            return Ended::Ready;
        }
        if coroutine.is_none() {
            coroutine = ask(thread, host);
        }
        let Some(coroutine) = coroutine else { return Ended::Blocks };
        match suspend(&wait, host, coroutine, caller, future) {
            Resumed::ToGoOn => {}
            Resumed::ToEnd if on_interrupt.may_end() => return Ended::Killed,
            Resumed::ToEnd | Resumed::NotSuspended => return Ended::Blocks,
        }
    }
}

/// Whether the wait cannot suspend a coroutine, whatever the host says.
fn must_block(thread: &ThreadState, sp: usize, host: &'static dyn Host) -> bool {
    if host.moves_stacks() && thread.owns(sp) {
        // The next upcalls will run on pooled stacks.
        thread.note_that_own_stack_moves(running);
        return true;
    }
    std::thread::panicking() || in_own_code() || host_runtime::is_in_entered_poll()
}

/// Has the host suspend the coroutine.
fn suspend(
    wait: &Taken,
    host: &'static dyn Host,
    coroutine: Coroutine,
    caller: &'static Location<'static>,
    future: Function,
) -> Resumed {
    if fork::is_untold() {
        fork::panic_untold();
    }
    wait.suspend(coroutine, caller, future);
    downcall(|| {
        // What the thread does next is not this upcall's.
        ThreadState::current().upcall.set_sp(0);
        host.suspend(coroutine)
    })
}

/// Asks the host for the running coroutine, unless this is a wait inside its answer.
fn ask(thread: &ThreadState, host: &'static dyn Host) -> Option<Coroutine> {
    let sp = stack_pointer();
    let own = OWN.with(|own| own.asks.replace(sp));
    let _asking = Asking(own);
    if own != 0 && !thread.is_abandoned(own, sp) { None } else { downcall(|| host.current()) }
}

/// The host's address for the running coroutine; 0 if it names none.
pub(super) fn running() -> usize {
    let host = OWN.with(host);
    let coroutine = host.and_then(|host| ask(ThreadState::current(), host));
    coroutine.map_or(0, |coroutine| coroutine.as_ptr() as usize)
}

/// The host's `current` runs. Keeps the previous `asks`, for its drop to restore.
struct Asking(usize);

impl Drop for Asking {
    fn drop(&mut self) {
        OWN.with(|own| own.asks.set(self.0));
    }
}
