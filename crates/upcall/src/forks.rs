//! fork: the child has one thread, a copy of all memory, and a copy of every lock's state.
//!
//! `stackbounds` (`src/fork/`) holds our locks during a fork, lets the fork handlers of other
//! libraries pass, and defines when each function here is called. This module has the child's work.
//! The child forgets the parent's other threads, with their records, workers and run queues. The
//! thread that forked continues unchanged: attached, in the middle of its calls, with its own
//! fibers and `LocalRuntime`. Code on other threads stays in the parent. A wait for it in the child
//! ends with an error.
//!
//! Locks of other libraries are their business. A thread that reports a panic holds a lock of
//! Rust's standard library. If the process forks at that moment, the child hangs at its own first
//! panic, unless the process has a panic hook that takes no lock. A thread inside
//! `dl_iterate_phdr`, such as a profiler's, holds a lock of glibc. If the process forks then, the
//! child hangs at its next `dl_iterate_phdr`. Fibers call this function while no C++ runtime is
//! known (see `thread/exceptions.rs`).
//!
//! The child does not free the property of the parent's other threads. Their stacks, and their
//! fibers that had not ended, stay in memory. Rule: **whatever might still be live is never
//! freed.** A destructor that runs in both parent and child would do its work twice.

use std::ptr;

use stackbounds::for_upcall::{Identity, Participant, take_part_in_forks};

use crate::coroutine::names;
use crate::fiber::coroutines;
use crate::handle::table;
use crate::report::lock_word as report_lock_word;
use crate::stack::{alternate, pool, registered, service};
use crate::sync::{Whose, Word};
use crate::thread::{ThreadState, exceptions, parker, record};
use crate::{memory, process};

static PARTICIPANT: Participant = Participant { each_lock, identity, at_once, forget, resume, is_alone };

/// Registers this library for forks. To be called once.
pub(crate) fn watch() {
    take_part_in_forks(&PARTICIPANT);
}

/// Visits all locks of the library, in the order of their nesting.
fn each_lock(visit: &mut dyn FnMut(&'static Word, Whose)) {
    #[cfg(feature = "runtime")]
    {
        crate::runtime::each_lock(visit);
        visit(crate::task::watchers::lock_word(), Whose::All);
    }
    let others = [
        coroutines::lock_word(),
        table::lock_word(),
        memory::lock_word(),
        report_lock_word(),
        alternate::lock_word(),
        parker::lock_word(),
        registered::lock_word(),
        record::lock_word(),
        names::lock_word(),
        pool::lock_word(),
        exceptions::lock_word(),
    ];
    others.into_iter().for_each(|word| visit(word, Whose::All));
}

/// The calling thread, and its run queue and waits on coroutines if it has them.
fn identity() -> Identity {
    #[cfg(feature = "runtime")]
    let queue = crate::runtime::own_queue();
    #[cfg(not(feature = "runtime"))]
    let queue = ptr::null();
    [ptr::from_ref(ThreadState::current()).cast(), queue, coroutines::own_waits_address()]
}

fn at_once() {
    process::fork::count();
    // No thread in the child uses a service stack: a thread passes here before it takes one.
    service::forget_users();
}

fn forget([thread, queue, waits]: Identity) {
    record::forget_other_threads(thread.cast());
    coroutines::forget_others(waits);
    #[cfg(feature = "runtime")]
    {
        crate::runtime::forget_other_threads(queue);
        crate::task::forget_others();
    }
    #[cfg(not(feature = "runtime"))]
    let _ = queue;
}

fn resume() {
    #[cfg(feature = "runtime")]
    crate::runtime::look_again();
    coroutines::look_again();
    // The thread may be waiting for something that only the parent has now.
    ThreadState::current().look_again();
}

fn is_alone() -> bool {
    let alone = record::is_alone(ThreadState::current());
    #[cfg(feature = "runtime")]
    let alone = alone && crate::runtime::has_no_threads();
    alone
}
