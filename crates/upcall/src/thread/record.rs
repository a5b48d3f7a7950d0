//! Attach and detach: a thread's record, made at its first upcall and freed at its exit.
//!
//! A pthread key's destructor frees the record. Destructors of other keys may call us after that, in every round that
//! the system makes; setting the key again would leak in the last round. So a thread that is **exiting** is attached for as long
//! as a call needs it, and each call's end looks whether it was the last.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Mutex, MutexGuard};

use stackbounds::{Kind, StackBounds, stack_pointer};

use super::left::Payloads;
use super::{Hot, OpenCall, is_beside_token, left, thread_id, thread_name, thread_token};
use crate::config::{ForeignStacks, settings};
use crate::process::keep_constructor;
use crate::quiet::{Quiet, fatal, report};
use crate::stack::locals::{Locals, drop_locals};
use crate::stack::{Control, Mark, alternate, control_at, pool, registered, service};
use crate::sync;

/// What is kept for a thread besides its [`Hot`].
pub(crate) struct Record {
    pub hot: *const Hot,
    pub thread_id: usize,
    /// See [`Mark`].
    pub serial: usize,
    /// The message of the last panic that an upcall caught, or of its last refusal.
    pub last_panic: RefCell<Option<String>>,
    /// The values of fiber-local variables for code outside fibers.
    pub locals: RefCell<Locals>,
    /// Upcalls from undescribed stacks were reported once.
    pub reported_foreign: Cell<bool>,
    /// Stacks whose upcalls seem to have been left, those that have seemed so for the longest time first.
    pub left_stacks: RefCell<VecDeque<&'static Control>>,
    /// The places of the thread's downcalls, in blocks each as large as all before it. Only the thread itself adds one, under the lock of
    /// the list, so it may look without.
    call_blocks: UnsafeCell<Vec<Box<[OpenCall]>>>,
}

impl Record {
    /// The thread's downcalls that have not returned. Called by the thread itself, or under the lock of the list.
    pub fn open_calls(&self) -> impl Iterator<Item = &OpenCall> {
        // SAFETY: blocks are added by the thread itself under the lock (`find_call_places`); the caller is the one or holds the other.
        let blocks = unsafe { &*self.call_blocks.get() };
        blocks.iter().flat_map(|block| block.iter()).filter(|place| place.is_open())
    }

    /// How many places for downcalls there are.
    fn call_places(&self) -> usize {
        // SAFETY: as in `open_calls`; this is the thread itself.
        unsafe { &*self.call_blocks.get() }.iter().map(|block| block.len()).sum()
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

/// Holds the list, and the records' call blocks, as they are.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    lock()
}

/// In the child of a fork: the records of threads that are not here are left alone.
pub(crate) fn forget_other_threads(hot: &Hot) {
    lock().0.retain(|&record| ptr::eq(record, hot.record.get()));
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
    keep_constructor();
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
            let number = LAST_SERIAL.fetch_add(1, Relaxed) + 1;
            hot.mark.set(Mark::new(number, thread_token(), is_beside_token(ptr::from_ref(hot) as usize)));
        }
        let record = Box::into_raw(Box::new(Record {
            hot,
            thread_id: thread_id(),
            serial: hot.mark.get().serial,
            last_panic: RefCell::new(None),
            locals: RefCell::default(),
            reported_foreign: Cell::new(false),
            left_stacks: RefCell::default(),
            call_blocks: UnsafeCell::new(Vec::new()),
        }));
        hot.record.set(record);
        if hot.exiting.get() || !free_at_exit(record) {
            // Where no key is left in the process, a thread is as good as exiting. Nothing takes its record off the list if
            // it ends inside a call, so it is never on it.
            hot.exiting.set(true);
        } else {
            lock().0.push(record);
            let _ = alternate::give();
        }
    });
}

/// At the end of a call: frees the record of a thread whose exit has been and will not free it, if nothing needs it.
#[inline(always)]
pub(crate) fn detach_if_exiting(hot: &'static Hot) {
    if hot.exiting.get() {
        detach_exiting(hot);
    }
}

#[cold]
#[inline(never)]
fn detach_exiting(hot: &'static Hot) {
    drop_thread_locals(hot);
    let sp = stack_pointer();
    left::drop_all(service::run(|| detach(hot, sp)));
}

/// Drops the thread's fiber-local values, here, since their destructors are anybody's code. The record stays meanwhile.
pub(crate) fn drop_thread_locals(hot: &'static Hot) {
    let _kept = KeptRecord::of(hot);
    if let Some(record) = hot.record() {
        drop(Quiet::new(drop_locals(&record.locals)));
    }
}

/// Whether `sp` is on the stack of the thread's signal handlers, and not its own; or on a service stack, where a handler without a stack of its own has
/// interrupted what is done there. For a service stack; makes no other call than signal handlers may make.
pub(crate) fn is_on_signal_stack(sp: usize) -> bool {
    service::contains(sp)
        || stackbounds::thread_at(sp).is_none_or(|own| !own.contains(sp))
            && stackbounds::on_alternate_stack(sp)
}

/// Keeps a thread's record from being freed.
pub(crate) struct KeptRecord(&'static Hot);

impl KeptRecord {
    pub fn of(hot: &'static Hot) -> Self {
        hot.record_keepers.set(hot.record_keepers.get() + 1);
        Self(hot)
    }

    /// Drops one that was forgotten.
    #[cfg(feature = "runtime")]
    pub fn end(hot: &'static Hot) {
        drop(Self(hot));
    }
}

impl Drop for KeptRecord {
    fn drop(&mut self) {
        self.0.record_keepers.set(self.0.record_keepers.get() - 1);
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
/// for now. Rule: whatever might still be live is never freed. Returns what calls that were left would have raised.
fn detach(hot: &'static Hot, sp: usize) -> Payloads {
    let mut payloads = Payloads::new();
    let Some(record) = hot.record() else { return payloads };
    let mut records = lock();
    records.0.retain(|&other| !ptr::eq(other, record));
    drop(records);
    hot.forget_surroundings();
    if record.open_calls().next().is_some() || hot.is_in_use() {
        payloads = left::reclaim_all(hot, record, sp);
        if record.open_calls().next().is_some() || hot.is_in_use() {
            return payloads;
        }
    }
    hot.forget_own_stack();
    hot.calls.forget_places();
    hot.give_back_spares();
    hot.forget_parker();
    // A signal handler may have come in between, and been the last to need it.
    let record = hot.record.replace(ptr::null());
    if !record.is_null() {
        // SAFETY: made by `attach`, out of the list, and the pointer in `hot`, which is this thread's, is gone now.
        drop(unsafe { Box::from_raw(record.cast_mut()) });
    }
    payloads
}

/// Frees the record of a thread that lives on, which nothing needs, so that there are no calls. The key keeps a value, so that the thread's exit is noticed all the same: an
/// upcall of another key's destructor could attach the thread in the last round, with nobody to free that.
pub(crate) fn detach_before_exit(hot: &'static Hot, sp: usize) {
    if let (false, Some(key)) = (hot.exiting.get(), key()) {
        // SAFETY: the key was created and is never deleted.
        unsafe { libc::pthread_setspecific(key, DETACHED) };
    }
    let _none = detach(hot, sp);
    alternate::take_back();
}

/// The key's value for a thread that was detached before its exit: the address of no record.
const DETACHED: *const libc::c_void = ptr::without_provenance(1);

/// One more than the key whose value is a thread's record, until the thread exits; 0 before there is one. No lock that a fork could leave locked.
static KEY: AtomicUsize = AtomicUsize::new(0);

/// The calling thread's record, if it is attached and not exiting. For the handlers of signals: without thread-local storage, which is not there yet in
/// a thread that is older than this library.
pub(crate) fn in_handler() -> Option<&'static Record> {
    // SAFETY: the key was created and is never deleted.
    let value = unsafe { libc::pthread_getspecific(key()?) };
    // SAFETY: null, or a record that is freed after this was set to something else.
    if ptr::eq(value, DETACHED) { None } else { unsafe { value.cast::<Record>().as_ref() } }
}

fn key() -> Option<libc::pthread_key_t> {
    KEY.load(Acquire).checked_sub(1).map(|key| key as libc::pthread_key_t)
}

/// Has the record freed when the calling thread exits.
fn free_at_exit(record: *const Record) -> bool {
    extern "C" fn at_exit(_: *mut libc::c_void) {
        let hot = Hot::here();
        hot.exiting.set(true);
        drop_thread_locals(hot);
        left::drop_all(detach(hot, stack_pointer()));
        alternate::take_back();
    }

    if KEY.load(Acquire) == 0 {
        let mut key = 0;
        // SAFETY: `key` is valid for writing; the destructor takes any value.
        if unsafe { libc::pthread_key_create(&mut key, Some(at_exit)) } != 0 {
            return false;
        }
        if KEY.compare_exchange(0, key as usize + 1, AcqRel, Acquire).is_err() {
            // SAFETY: another thread was first; this key is used by nobody.
            unsafe { libc::pthread_key_delete(key) };
        }
    }
    let Some(key) = key() else { return false };
    // SAFETY: the key was created and is never deleted.
    unsafe { libc::pthread_setspecific(key, record.cast()) == 0 }
}

/// Finds free places for downcalls of the calling thread, which is attached; for one at `sp`.
#[cold]
#[inline(never)]
pub(crate) fn find_call_places(hot: &'static Hot, sp: usize) {
    let record = hot.record().expect("upcall: a thread is attached before it makes downcalls");
    if record.call_places() >= left::MANY_CALLS && left::reclaim(hot, sp).calls > record.call_places() / 2 {
        return;
    }
    service::run(|| {
        let _no_snapshot = lock();
        // SAFETY: this is the record's thread, and nobody else looks while the lock is held.
        let blocks = unsafe { &mut *record.call_blocks.get() };
        blocks.push(hot.calls.add(FIRST_CALL_BLOCK << blocks.len().saturating_sub(1)));
    });
}

/// A thread, which is alive, as messages name it.
pub(crate) fn describe(id: usize) -> String {
    match thread_name(id) {
        Some(name) => format!("thread {id:#x} ({name})"),
        None => format!("thread {id:#x}"),
    }
}

/// Rule: a call that comes back on another thread is reported by name, and the process stopped.
#[cold]
#[inline(never)]
pub(crate) fn abort_on_wrong_thread(began: Mark, what: impl FnOnce() -> String) -> ! {
    // Where this is on a stack of ours, the host's is the one beneath, unless C was on ours.
    let sp = stack_pointer();
    let sp = match control_at(sp) {
        Some(stack) if stack.fiber().is_none() => stack.system_sp.load(Relaxed),
        _ => sp,
    };
    let (mut began_on, mut own_stack) = (None, None);
    for_each(|record| {
        let thread = describe(record.thread_id);
        // SAFETY: its thread cannot detach meanwhile, says `for_each`; only atomic fields are read.
        let own = unsafe { (*record.hot).own_stack() };
        if own.is_some_and(|(low, high)| (low..high).contains(&sp)) {
            own_stack = Some(format!("the own stack of {thread}"));
        }
        if record.serial == began.serial {
            began_on = Some(thread);
        }
    });
    let began_on = began_on.unwrap_or("a thread that has exited".to_owned());
    let stack = registered::described(sp).or(own_stack).unwrap_or_else(|| match stackbounds::around(sp) {
        Some(around) if around.kind != Kind::Gap => {
            format!("the stack {:#x}..{:#x}", around.low, around.high)
        }
        _ => format!("a stack around {sp:#x} that nobody described"),
    });
    fatal(format_args!(
        "{}, which began on {began_on}, came back on {}: the host resumed {stack}, which holds Rust frames, on another thread. \
         Such a stack must be resumed on the thread that it was suspended on",
        what(),
        describe(thread_id())
    ));
}

/// Keeps the message of the last panic or refusal on this thread, for C to ask for. That of a signal handler is lost if it has interrupted this, or C's
/// asking.
pub(crate) fn set_last_panic(hot: &Hot, message: &str) {
    let message = Some(message.to_owned());
    let place = hot.record().and_then(|record| record.last_panic.try_borrow_mut().ok());
    let before = place.map(|mut place| std::mem::replace(&mut *place, message));
    drop(before);
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
