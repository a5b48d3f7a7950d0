//! The watchers of tasks: waiters, descriptors, and starters in want of a place.
//!
//! One lock guards all of them, and the parts of streams. It is held for a few instructions, and
//! never during a call of anybody's code. A task without watchers never takes it.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};

use super::cell::TaskCell;
use crate::process::fork;
use crate::sync::Event;
use crate::sync::{Held, Lock, Word, hold};
use crate::sys::{RawEvent, raw};
use crate::thread::waker;

/// The wakers of waiters, by the address of their cell and by a number of their own.
pub(super) struct Watchers {
    waiters: BTreeMap<(usize, u64), Waker>,
    numbered: u64,
}

static WATCHERS: Lock<Watchers> = Lock::new(Watchers { waiters: BTreeMap::new(), numbered: 0 });
/// The number of starters in want of a place, so that an end takes the lock only for them.
static WANTED: AtomicUsize = AtomicUsize::new(0);
/// The address under which these starters wait.
const ROOM: usize = 0;

pub(super) fn lock() -> Held<Watchers> {
    hold(&WATCHERS)
}

/// The lock, for forks.
pub(crate) fn lock_word() -> &'static Word {
    WATCHERS.word()
}

impl Watchers {
    /// Enters a waker under `key`, or under a new number. Returns the waker before.
    fn register(&mut self, address: usize, number: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let number = *number.get_or_insert_with(|| {
            self.numbered += 1;
            self.numbered
        });
        self.waiters.insert((address, number), waker)
    }

    fn take_all(&mut self, address: usize) -> Vec<Waker> {
        let mut taken = Vec::new();
        let all = (address, 0)..=(address, u64::MAX);
        while let Some((&key, _)) = self.waiters.range(all.clone()).next() {
            taken.extend(self.waiters.remove(&key));
        }
        taken
    }
}

/// A waiter for changes of one task.
pub(super) struct Waiter<'a> {
    cell: &'a Arc<TaskCell>,
    number: Option<u64>,
}

impl<'a> Waiter<'a> {
    pub fn new(cell: &'a Arc<TaskCell>) -> Self {
        Self { cell, number: None }
    }

    /// Polls `ready`, and enters the waker if it returns nothing.
    pub fn poll<R>(&mut self, context: &mut Context<'_>, mut ready: impl FnMut() -> Option<R>) -> Poll<R> {
        if let Some(result) = ready() {
            return Poll::Ready(result);
        }
        let waker = context.waker().clone();
        let before = lock().register(address(self.cell), &mut self.number, waker);
        waker::discard(before);
        self.cell.state().watch();
        // A change before `watch` told nobody.
        ready().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = lock().waiters.remove(&(address(self.cell), number));
            waker::discard(waker);
        }
    }
}

fn address(cell: &Arc<TaskCell>) -> usize {
    Arc::as_ptr(cell).addr()
}

/// Tells the watchers of a task that it has changed.
pub(super) fn tell(cell: &Arc<TaskCell>) {
    let mut watchers = lock();
    let wakers = watchers.take_all(address(cell));
    // SAFETY: the lock is held.
    if let Some(fd) = unsafe { cell.watch.get() } {
        fd.signal();
    }
    drop(watchers);
    wakers.into_iter().for_each(waker::wake);
}

/// A starter in want of a place.
pub(super) struct Room(Option<u64>);

impl Room {
    pub fn new() -> Self {
        WANTED.fetch_add(1, SeqCst);
        Self(None)
    }

    pub fn register(&mut self, waker: &Waker) {
        let waker = waker.clone();
        let before = lock().register(ROOM, &mut self.0, waker);
        waker::discard(before);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        WANTED.fetch_sub(1, SeqCst);
        let waker = self.0.and_then(|number| lock().waiters.remove(&(ROOM, number)));
        waker::discard(waker);
    }
}

/// Tells the starters in want of a place that there is one.
pub(super) fn tell_room() {
    if WANTED.load(SeqCst) != 0 {
        let wakers = lock().take_all(ROOM);
        wakers.into_iter().for_each(waker::wake);
    }
}

/// The descriptor of a task, readable when the task has changed.
pub(super) struct Watch(UnsafeCell<Option<Box<Descriptor>>>);

struct Descriptor {
    event: Event,
    /// The epoch of the process that made it.
    epoch: usize,
}

impl Watch {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(None))
    }

    /// # Safety
    /// The lock must be held while the result is used.
    unsafe fn get(&self) -> Option<&Event> {
        // SAFETY: the caller holds the lock that guards the field.
        unsafe { &*self.0.get() }.as_ref().map(|descriptor| &descriptor.event)
    }

    /// The number of the descriptor, if there is one. In the child of a fork, the parent's is
    /// replaced by a new one under the same number.
    fn raw(cell: &TaskCell) -> Option<RawEvent> {
        let _held = lock();
        // SAFETY: the lock is held.
        let descriptor = unsafe { &mut *cell.watch.0.get() }.as_mut()?;
        if descriptor.epoch != fork::epoch() {
            descriptor.event.renew();
            descriptor.epoch = fork::epoch();
        }
        Some(raw(descriptor.event.event()))
    }

    /// Makes the descriptor, unless another thread has made one.
    fn make(cell: &TaskCell) -> io::Result<RawEvent> {
        let new = Box::new(Descriptor { event: Event::new()?, epoch: fork::epoch() });
        let _held = lock();
        // SAFETY: the lock is held.
        let descriptor = unsafe { &mut *cell.watch.0.get() }.get_or_insert(new);
        Ok(raw(descriptor.event.event()))
    }

    /// Makes the descriptor unreadable. The caller looks afterwards whether the task has changed.
    fn clear(cell: &TaskCell) {
        let _held = lock();
        // SAFETY: the lock is held.
        if let Some(event) = unsafe { cell.watch.get() } {
            event.clear();
        }
    }
}

/// The descriptor of a task. It is readable while the task has news.
pub(super) fn descriptor(cell: &TaskCell) -> io::Result<RawEvent> {
    let raw = Watch::raw(cell).map_or_else(|| Watch::make(cell), Ok)?;
    cell.state().watch();
    update_descriptor(cell);
    Ok(raw)
}

/// Makes the descriptor readable or not, after C has looked.
pub(super) fn update_descriptor(cell: &TaskCell) {
    if !cell.state().is_watched() {
        return;
    }
    Watch::clear(cell);
    if cell.has_news() {
        let _held = lock();
        // SAFETY: the lock is held.
        if let Some(event) = unsafe { cell.watch.get() } {
            event.signal();
        }
    }
}

/// In the child of a fork: forgets the waiters of other threads. Their wakers may be anybody's, and
/// are not dropped.
pub(super) fn forget() {
    let waiters = std::mem::take(&mut lock().waiters);
    waiters.into_values().for_each(std::mem::forget);
}
