//! Attach and detach: a thread's record, made at its first upcall and given back at its exit.
//!
//! A function called at the thread's exit (`sys::call_at_exit`) gives the record back: on Unix, the
//! destructor of a pthread key. Destructors of other keys may make upcalls after that, in every
//! round of destructors that the system makes. Setting the key again would leak in the last round.
//! So an **exiting** thread is attached only as long as a call needs it, and each call checks at
//! its end whether it was the last: [`Attached`] pairs the two.
//!
//! After the destructors, C libraries tear down the thread's part of their allocator, under its
//! locks. A signal handler may make an upcall then, indistinguishable from one by a destructor. So
//! rule: **a thread whose record was given back at its exit allocates nothing to attach again.**
//! Records are reused by other threads and never freed. Each exiting thread has given one back, and
//! a stock of idle ones is reserved for them.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use stackbounds::for_upcall::{ask_before_switch, on_alternate_stack, thread_at};
use stackbounds::stack_pointer;

use super::abandoned::Payloads;
use super::locals::drop_locals;
use super::record::{RECORDS_FOR_EXITS, Record, lock};
use super::{OpenCall, RecordPin, ThreadState, abandoned};
use crate::config::settings;
use crate::drop_guards::IgnoreDropPanic;
use crate::process::keep_constructor;
use crate::stack::{ThreadId, alternate, service};
use crate::sync::in_own_code;
use crate::sys;
use crate::sys::isa::{is_beside_token, thread_token};
use crate::sys::os_thread_id;

/// Keeps the calling thread attached. If the thread is exiting, dropping the last one detaches it,
/// unless something else needs the record.
pub(crate) struct Attached(&'static ThreadState);

impl Attached {
    /// Attaches the calling thread, if it has no record. `sp` is its stack pointer, on whatever
    /// stack. Needs next to no stack: the work is done on a service stack.
    #[inline(always)]
    pub fn new(thread: &'static ThreadState, sp: usize) -> Self {
        if thread.record().is_none() {
            attach(thread, sp, true);
        }
        Self(thread)
    }

    /// Attaches the calling thread for an upcall, if it has no record.
    ///
    /// `None` if attaching would take locks or allocate in a signal handler on an alternate stack;
    /// also if it would allocate after the thread's exit, where a handler may have interrupted the
    /// allocator for good. Also returns whether the caller is such a handler, if this had to be
    /// determined.
    #[inline]
    pub fn for_upcall(thread: &'static ThreadState, sp: usize) -> (Option<Self>, Option<bool>) {
        if thread.record().is_some() {
            return (Some(Self(thread)), None);
        }
        let (attached, in_handler) = attach_for_upcall(thread, sp);
        (attached.then_some(Self(thread)), Some(in_handler))
    }

    /// Makes the guard for a thread that is attached.
    #[inline(always)]
    pub fn already(thread: &'static ThreadState) -> Self {
        Self(thread)
    }
}

impl Drop for Attached {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.life.exiting.get() && !in_own_code() {
            detach_exiting(self.0);
        }
    }
}

/// Attaches the calling thread, which is at `sp`. Returns whether it is attached: without
/// `may_allocate`, this may fail for lack of a record.
#[cold]
#[inline(never)]
fn attach(thread: &'static ThreadState, sp: usize, may_allocate: bool) -> bool {
    keep_constructor();
    assert!(
        !in_own_code(),
        "upcall: an allocator or a hook of malloc, called by code of upcall's that makes the thread known, uses more of upcall than calls: \
         it may not wait, nor use fibers or fiber-local values"
    );
    ask_before_switch(sp);
    service::run(|| attach_here(thread, sp, may_allocate))
}

/// Attaches the calling thread for an upcall, unless it is in a signal handler on an alternate
/// stack, because attaching takes locks and allocates.
///
/// Returns whether the thread is attached, and whether the caller is such a handler.
#[cold]
#[inline(never)]
fn attach_for_upcall(thread: &'static ThreadState, sp: usize) -> (bool, bool) {
    keep_constructor();
    ask_before_switch(sp);
    service::run(|| {
        let in_handler = is_on_signal_stack(sp);
        (!in_handler && attach_here(thread, sp, !thread.has_exited()), in_handler)
    })
}

/// Attaches the calling thread. Runs on a service stack.
fn attach_here(thread: &'static ThreadState, sp: usize, may_allocate: bool) -> bool {
    let Some(record) = make_record(thread, may_allocate) else { return false };
    thread.set_settings(settings());
    if thread.may_ask_for_own_stack() {
        if let Some(own) = thread_at(sp) {
            // If the thread is on another stack, nothing can be verified yet.
            thread.set_own_stack(&own, own.high());
        }
        thread.look_below(sp, thread.min_stack());
    }
    thread.life.record.set(record);
    if thread.life.exiting.get() || !free_at_exit(record) {
        // If the process has no pthread key to spare, the thread counts as exiting. If such a
        // thread ends inside a call, nothing takes its record off the list. So it is never listed.
        thread.note_exit();
    } else {
        lock().attached.push(record);
        let _ = alternate::give();
    }
    true
}

/// Makes a record for the calling thread: a reused one or, if it `may_allocate`, a new one.
fn make_record(thread: &'static ThreadState, may_allocate: bool) -> Option<*const Record> {
    if thread.id.get().serial == 0 {
        static LAST_SERIAL: AtomicUsize = AtomicUsize::new(0);
        let number = LAST_SERIAL.fetch_add(1, Relaxed) + 1;
        thread.id.set(ThreadId::new(number, thread_token(), is_beside_token(ptr::from_ref(thread) as usize)));
    }
    let mut records = lock();
    let idle = if thread.has_exited() || records.idle_count > RECORDS_FOR_EXITS {
        records.take_idle()
    } else {
        None
    };
    drop(records);
    let new = |blocks| Record {
        thread,
        os_thread_id: os_thread_id(),
        serial: thread.id.get().serial,
        last_message: RefCell::new(None),
        locals: RefCell::default(),
        reported_foreign: Cell::new(false),
        quarantine: RefCell::default(),
        call_blocks: UnsafeCell::new(blocks),
        next: Cell::new(ptr::null()),
    };
    if let Some(record) = idle {
        // SAFETY: `take_idle` gave the record to this thread alone. `empty` emptied its other
        // fields before, so overwriting them leaks nothing.
        unsafe {
            let blocks = std::mem::take(&mut *(*record).call_blocks.get());
            blocks.iter().flat_map(|block| block.iter()).for_each(OpenCall::make_free);
            record.write(new(blocks));
        }
        return Some(record);
    }
    may_allocate.then(|| Box::into_raw(Box::new(new(Vec::new()))).cast_const())
}

#[cold]
#[inline(never)]
fn detach_exiting(thread: &'static ThreadState) {
    // Not while one of these destructors runs: they would nest, each dropping values inside the one
    // before.
    let sp = stack_pointer();
    if !thread.is_record_pinned(sp) {
        drop_thread_locals(thread);
    }
    abandoned::drop_all(service::run(|| detach(thread, sp)));
}

/// The thread's record, if it has fiber-local values.
fn record_with_locals(thread: &ThreadState) -> Option<&Record> {
    thread.record().filter(|record| record.locals.try_borrow().is_ok_and(|locals| !locals.is_empty()))
}

/// Drops the thread's fiber-local values. On the caller's stack, because their destructors may be
/// any code. The record stays meanwhile.
#[inline(never)]
pub(crate) fn drop_thread_locals(thread: &'static ThreadState) {
    if let Some(record) = record_with_locals(thread) {
        let _pin = RecordPin::of(thread);
        drop(IgnoreDropPanic::new(drop_locals(&record.locals)));
    }
}

/// Whether `sp` belongs to a signal handler: it is on the thread's alternate stack, outside its own
/// stack, or on a service stack.
///
/// A handler without a stack of its own runs on a service stack if it interrupted the work there.
/// To be called on a service stack. Makes no calls but those allowed in signal handlers.
pub(crate) fn is_on_signal_stack(sp: usize) -> bool {
    service::contains(sp) || thread_at(sp).is_none_or(|own| !own.contains(sp)) && on_alternate_stack(sp)
}

/// Gives the thread's record back. Signals must be blocked.
///
/// Open calls and stacks in use belong to coroutines that may yet resume. If there are any,
/// everything stays for now. Rule: whatever might still be live is never freed. Returns the pending
/// panics of abandoned calls.
fn detach(thread: &'static ThreadState, sp: usize) -> Payloads {
    let mut payloads = Payloads::new();
    let Some(record) = thread.record() else { return payloads };
    let mut records = lock();
    records.attached.retain(|&other| !ptr::eq(other, record));
    drop(records);
    thread.forget_surroundings();
    if record.open_calls().next().is_some() || thread.is_in_use(sp) {
        payloads = abandoned::reclaim_all(thread, record, sp);
        if record.open_calls().next().is_some() || thread.is_in_use(sp) {
            return payloads;
        }
    }
    thread.forget_own_stack();
    thread.calls.forget_places();
    thread.give_back_spares();
    thread.forget_parker();
    thread.life.record.set(ptr::null());
    record.empty();
    lock().add_idle(record);
    payloads
}

/// Gives back the record of a thread that lives on.
///
/// Requirement: nothing needs the record, so the thread has no open calls. The key keeps a value so
/// that the thread's exit is noticed nevertheless. Otherwise, an upcall by another key's destructor
/// could attach the thread in the last round, and nobody would give the new record back.
pub(crate) fn detach_before_exit(thread: &'static ThreadState, sp: usize) {
    if !thread.life.exiting.get() && !sys::exit_value().is_null() {
        sys::call_at_exit(DETACHED, at_exit);
    }
    let _none = detach(thread, sp);
    alternate::take_back();
}

/// The exit's value for a thread that was detached before. Not the address of a record.
const DETACHED: *const c_void = ptr::without_provenance(1);

/// The calling thread's record, if it is attached and not exiting. For signal handlers.
pub(crate) fn in_handler() -> Option<&'static Record> {
    let value = sys::exit_value();
    // SAFETY: null or a record. A record is given back only after the value is another.
    if ptr::eq(value, DETACHED) { None } else { unsafe { value.cast::<Record>().as_ref() } }
}

/// Makes the calling thread's exit give the record back. Returns whether this is possible.
fn free_at_exit(record: *const Record) -> bool {
    sys::call_at_exit(record.cast(), at_exit)
}

extern "C" fn at_exit(_: *mut c_void) {
    let (thread, sp) = (ThreadState::current(), stack_pointer());
    let detach = || {
        let pending = detach(thread, sp);
        alternate::take_back();
        pending
    };
    // Most threads have no fiber-local values. For them, this is a single visit.
    let pending = service::run(|| {
        thread.note_own_exit();
        thread.record().inspect(|record| record.reserve_places());
        record_with_locals(thread).is_none().then(detach)
    });
    abandoned::drop_all(pending.unwrap_or_else(|| {
        drop_thread_locals(thread);
        service::run(detach)
    }));
}
