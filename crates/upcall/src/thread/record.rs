//! Attach and detach: a thread's record, made at its first upcall and freed at its exit.
//!
//! A pthread key's destructor frees the record. Destructors of other keys may call us after that, in every round that
//! the system makes; setting the key again would leak in the last round. So a thread that is **exiting** is attached for as long
//! as a call needs it, and each call's end looks whether it was the last.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, OnceLock};

use stackbounds::StackBounds;

use super::{Hot, KeptRecord, OpenCall, thread_id, thread_name, thread_token};
use crate::config::{ForeignStacks, settings};
use crate::quiet::{Quiet, report};
use crate::stack::coroutine::{Locals, drop_locals};
use crate::stack::{Mark, pool, service};
use crate::sync;

/// What is kept for a thread besides its [`Hot`].
pub(crate) struct Record {
    pub hot: *const Hot,
    pub thread_id: usize,
    /// See [`Mark`].
    serial: usize,
    /// The message of the last panic that an upcall caught, or of its last refusal.
    pub last_panic: RefCell<Option<String>>,
    /// The values of fiber-local variables for code outside fibers.
    pub locals: RefCell<Locals>,
    /// Upcalls from undescribed stacks were reported once.
    pub reported_foreign: Cell<bool>,
    /// The places of the thread's downcalls, in blocks each as large as all before it. Only the thread itself adds one, under the lock of
    /// the list, so it may look without.
    call_blocks: UnsafeCell<Vec<Box<[OpenCall]>>>,
}

impl Record {
    /// The thread's downcalls that have not returned. Called by the thread itself, or under the lock of the list.
    pub fn open_calls(&self) -> impl Iterator<Item = &OpenCall> {
        // SAFETY: blocks are added by the thread itself under the lock (`add_call_places`); the caller is one or holds the other.
        let blocks = unsafe { &*self.call_blocks.get() };
        blocks.iter().flat_map(|block| block.iter()).filter(|place| place.is_open())
    }
}

/// Places for downcalls that a thread begins with.
const FIRST_CALL_BLOCK: usize = 16;

/// The records of the attached threads that are not exiting.
struct Records(Vec<*const Record>);

// SAFETY: a record is in the list from attach to detach, both under the lock, and lives longer. Others than its thread
// look at its atomic fields and at those that never change.
unsafe impl Send for Records {}

static RECORDS: Mutex<Records> = Mutex::new(Records(Vec::new()));

fn lock() -> MutexGuard<'static, Records> {
    sync::lock(&RECORDS)
}

/// Calls `look` for the record of each attached thread, but exiting ones; none of them can detach or end meanwhile.
pub(crate) fn for_each(mut look: impl FnMut(&Record)) {
    for &record in &lock().0 {
        // SAFETY: in the list and the lock held: not freed.
        look(unsafe { &*record });
    }
}

/// Makes a record for the calling thread, whose stack pointer, wherever that is, is `sp`, if it has none. Needs next to no stack: the
/// work is done on a service stack.
#[inline(always)]
pub(crate) fn attach_if_new(hot: &'static Hot, sp: usize) {
    if hot.record().is_none() {
        attach(hot, sp);
    }
}

#[cold]
#[inline(never)]
fn attach(hot: &'static Hot, sp: usize) {
    service::run(|| {
        let settings = settings();
        hot.min_stack.set(settings.min_stack);
        hot.checks_foreign.set(settings.foreign_stacks != ForeignStacks::Allow);
        let slot = pool::slot_size_for;
        hot.fibers_on_spares.set(slot(settings.fiber_stack) == slot(settings.min_stack));
        if let Some(own) = stackbounds::thread_at(sp) {
            hot.set_own_stack(own.low(), own.high());
        }
        if hot.mark.get().serial == 0 {
            static LAST_SERIAL: AtomicUsize = AtomicUsize::new(0);
            let serial = LAST_SERIAL.fetch_add(1, Relaxed) + 1;
            hot.mark.set(Mark { token: thread_token(), serial });
        }
        let record = Box::into_raw(Box::new(Record {
            hot,
            thread_id: thread_id(),
            serial: hot.mark.get().serial,
            last_panic: RefCell::new(None),
            locals: RefCell::default(),
            reported_foreign: Cell::new(false),
            call_blocks: UnsafeCell::new(Vec::new()),
        }));
        hot.record.set(record);
        if hot.exiting.get() || !free_at_exit(record) {
            // Where no key is left in the process, a thread is as good as exiting. Nothing takes its record off the list if
            // it ends inside a call, so it is never on it.
            hot.exiting.set(true);
        } else {
            lock().0.push(record);
        }
    });
}

/// At the end of a call: frees the record of a thread whose exit has been and will not free it, if nothing needs it.
#[inline(always)]
pub(crate) fn detach_if_exiting(hot: &'static Hot) {
    if hot.exiting.get() {
        drop_thread_locals(hot);
        service::run(|| detach(hot));
    }
}

/// Drops the thread's fiber-local values, here, since their destructors are anybody's code. The record stays meanwhile.
fn drop_thread_locals(hot: &'static Hot) {
    let _kept = KeptRecord::of(hot);
    if let Some(record) = hot.record() {
        drop(Quiet::new(drop_locals(&record.locals)));
    }
}

/// Takes notice of an exact stack that may be the thread's own: it was not known when the thread attached, on
/// the stack of a signal handler, or it has grown since.
#[inline]
pub(crate) fn learn_own_stack(hot: &Hot, stack: &StackBounds) {
    let unknown_or_grown = hot.own_stack().is_none_or(|(_, high)| high == stack.high());
    if unknown_or_grown && stackbounds::thread() == Some(*stack) {
        hot.set_own_stack(stack.low(), stack.high());
    }
}

/// Frees the thread's record. Calls that are still open, and stacks in use, belong to coroutines that may yet go on: then everything stays
/// for now. Rule: whatever might still be live is never freed.
fn detach(hot: &'static Hot) {
    let Some(record) = hot.record() else { return };
    let mut records = lock();
    records.0.retain(|&other| !ptr::eq(other, record));
    drop(records);
    hot.forget_surroundings();
    if record.open_calls().next().is_some() || hot.is_in_use() {
        return;
    }
    hot.forget_own_stack();
    hot.calls.forget_places();
    hot.give_back_spares();
    hot.forget_parker();
    // SAFETY: made by `attach`, out of the list, and the pointer in `hot`, which is this thread's, is gone now.
    drop(unsafe { Box::from_raw(hot.record.replace(ptr::null()).cast_mut()) });
}

/// Has the record freed when the calling thread exits.
fn free_at_exit(record: *const Record) -> bool {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    extern "C" fn at_exit(_: *mut libc::c_void) {
        let hot = Hot::here();
        hot.exiting.set(true);
        drop_thread_locals(hot);
        detach(hot);
    }

    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is valid for writing; the destructor takes any value.
        (unsafe { libc::pthread_key_create(&mut key, Some(at_exit)) } == 0).then_some(key)
    });
    // SAFETY: the key was created and is never deleted.
    key.is_some_and(|key| unsafe { libc::pthread_setspecific(key, record.cast()) } == 0)
}

/// Adds free places for downcalls of the calling thread, which is attached.
#[cold]
#[inline(never)]
pub(crate) fn add_call_places(hot: &'static Hot) {
    service::run(|| {
        let record = hot.record().expect("a thread is attached before it makes downcalls");
        let _no_snapshot = lock();
        // SAFETY: this is the record's thread, and nobody else looks while the lock is held.
        let blocks = unsafe { &mut *record.call_blocks.get() };
        blocks.push(hot.calls.add(FIRST_CALL_BLOCK << blocks.len().saturating_sub(1)));
    });
}

/// A thread, which is alive, as messages name it.
fn describe(id: usize) -> String {
    match thread_name(id) {
        Some(name) => format!("thread {id:#x} ({name})"),
        None => format!("thread {id:#x}"),
    }
}

/// Rule: a call that comes back on another thread is reported by name, and the process stopped.
#[cold]
#[inline(never)]
pub(crate) fn abort_on_wrong_thread(began: Mark, what: &str) -> ! {
    let mut began_on = None;
    for_each(|record| {
        if record.serial == began.serial {
            began_on = Some(describe(record.thread_id));
        }
    });
    let began_on = began_on.unwrap_or("a thread that has exited".to_owned());
    report(format_args!(
        "{what} that began on {began_on} came back on {}: the host resumed a stack that holds Rust frames on another thread. \
         Such a stack must be resumed on the thread that it was suspended on; the process is stopped",
        describe(thread_id())
    ));
    std::process::abort()
}

/// Keeps the message of the last panic or refusal on this thread, for C to ask for.
pub(crate) fn set_last_panic(hot: &Hot, message: &str) {
    if let Some(record) = hot.record() {
        *record.last_panic.borrow_mut() = Some(message.to_owned());
    }
}

/// Counts upcalls from undescribed stacks, of all threads, when they are not simply allowed.
pub(crate) static FOREIGN_UPCALLS: AtomicUsize = AtomicUsize::new(0);

/// Reports an upcall from an undescribed stack, once a thread.
pub(crate) fn report_foreign(hot: &Hot, sp: usize) {
    FOREIGN_UPCALLS.fetch_add(1, Relaxed);
    let Some(record) = hot.record() else { return };
    if !record.reported_foreign.replace(true) {
        let (low, high) = hot.own_stack().unwrap_or_default();
        service::run(|| {
            report(format_args!(
                "upcall from an undescribed stack: SP {sp:#x} on {} is outside its own stack {low:#x}..{high:#x} and no registered \
                 stack holds it. If the host runs coroutines this is harmless; if not, its stack pointer is corrupt",
                describe(record.thread_id)
            ));
        });
    }
}
