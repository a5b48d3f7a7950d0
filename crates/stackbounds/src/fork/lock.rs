//! A lock that fork handlers can pass, and a condition variable for it.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use super::{gate, is_untold, untold_child_is_stuck};
use crate::sys;

/// No thread holds the lock.
const FREE: u32 = 0;
/// A thread holds the lock, and no thread sleeps for it.
const HELD: u32 = 1;
/// A thread holds the lock, and others may sleep for it.
const CONTENDED: u32 = 2;
/// A fork is in progress: the [gate](super::gate) decides which thread passes.
const FORKING: u32 = 3;

/// How many times a thread looks at a held lock before it sleeps.
const SPINS: u32 = 100;

/// The state of a lock, apart from its value: the part that forks handle.
#[derive(Debug)]
pub struct Word(AtomicU32);

impl Word {
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// Takes the lock; `true` if the thread passed through the gate instead.
    #[inline]
    fn take(&self) -> bool {
        !self.try_take() && self.take_slowly()
    }

    #[inline]
    pub(super) fn try_take(&self) -> bool {
        self.0.compare_exchange(FREE, HELD, Acquire, Relaxed).is_ok()
    }

    #[cold]
    fn take_slowly(&self) -> bool {
        let mut visit = gate::Visit::new();
        while !self.take_or_sleep() {
            if visit.passes(self) {
                return true;
            }
        }
        false
    }

    /// Takes the lock, for a fork or for the gate itself; `false` if a fork is in progress.
    pub(super) fn take_unless_forking(&self) -> bool {
        self.try_take() || self.take_or_sleep()
    }

    /// Takes the lock, sleeping while others hold it; `false` if a fork is in progress.
    fn take_or_sleep(&self) -> bool {
        let mut spins = 0;
        loop {
            match self.0.load(Relaxed) {
                FORKING => return false,
                // Others may still sleep. The release of a contended lock wakes one.
                FREE if self.0.compare_exchange(FREE, CONTENDED, Acquire, Relaxed).is_ok() => return true,
                HELD if spins < SPINS => {
                    spins += 1;
                    core::hint::spin_loop();
                }
                HELD if self.0.compare_exchange(HELD, CONTENDED, Relaxed, Relaxed).is_err() => {}
                HELD | CONTENDED => {
                    if is_untold() {
                        untold_child_is_stuck();
                    }
                    sys::sleep_while(&self.0, CONTENDED, None);
                }
                _ => {}
            }
        }
    }

    /// Releases a lock that was taken without the gate.
    #[inline]
    pub(super) fn give_back(&self) {
        if self.0.swap(FREE, Release) == CONTENDED {
            sys::wake(&self.0);
        }
    }

    /// Hands a lock held by the calling thread to the gate.
    pub(super) fn begin_fork(&self) {
        if self.0.swap(FORKING, Release) == CONTENDED {
            sys::wake_all(&self.0);
        }
    }

    /// Frees a lock that was handed to the gate. Called inside the gate.
    pub(super) fn end_fork(&self) {
        if self.is_forking() {
            self.0.store(FREE, Release);
            sys::wake_all(&self.0);
        }
    }

    pub(super) fn is_forking(&self) -> bool {
        self.0.load(Acquire) == FORKING
    }

    /// Whether the lock is free.
    pub(super) fn is_free(&self) -> bool {
        self.0.load(Acquire) == FREE
    }

    /// Makes the lock free, in a child in which no thread can hold it.
    pub(super) fn reset(&self) {
        self.0.store(FREE, Relaxed);
    }

    /// Sleeps while a fork is in progress, for `time` at most.
    pub(super) fn sleep_while_forking(&self, time: Duration) {
        sys::sleep_while(&self.0, FORKING, Some(Instant::now() + time));
    }
}

/// A mutual exclusion lock for values that must be whole in the child of a fork.
///
/// Fork handlers of other libraries may use it too: see the module `fork`.
///
/// A panic does not poison it. It is small, and can be made in a constant.
pub struct Lock<T: ?Sized> {
    word: Word,
    value: UnsafeCell<T>,
}

// SAFETY: a thread reaches the value only while it holds the lock: by the word, or by the gate.
// While the word says that a fork is in progress, one thread at a time is inside the gate.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}
// SAFETY: the lock owns the value, so sending the lock sends a `T: Send`.
unsafe impl<T: ?Sized + Send> Send for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { word: Word::new(), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits until the lock is free, and takes it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        let passed = self.word.take();
        Guard { lock: self, passed, of_one_thread: core::marker::PhantomData }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let guard = || Guard { lock: self, passed: false, of_one_thread: core::marker::PhantomData };
        self.word.try_take().then(guard)
    }

    /// The state of the lock, apart from its value.
    pub fn word(&self) -> &Word {
        &self.word
    }
}

impl<T: ?Sized> fmt::Debug for Lock<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Lock").field("word", &self.word).finish_non_exhaustive()
    }
}

/// Access to the value of a [`Lock`] that the calling thread holds. Releases the lock on drop.
pub struct Guard<'a, T: ?Sized> {
    lock: &'a Lock<T>,
    /// Whether the gate is held in place of the word.
    passed: bool,
    of_one_thread: core::marker::PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives only shared references to the value, which is `Sync`.
unsafe impl<T: ?Sized + Sync> Sync for Guard<'_, T> {}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this thread holds the lock for as long as the guard lives, so no other one
        // changes the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread holds the lock, and the guard is borrowed mutably, so this is the
        // only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.passed {
            gate::leave();
        } else {
            self.lock.word.give_back();
        }
    }
}

impl<T: ?Sized> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Guard").field("passed", &self.passed).finish_non_exhaustive()
    }
}

/// A condition variable for a [`Lock`].
///
/// In the child of a fork, no thread sleeps on it.
#[derive(Debug)]
pub struct Condition(AtomicU32);

impl Condition {
    /// A condition variable without sleepers.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Releases the lock, sleeps until a notification or for `time` at most, and takes the lock
    /// again.
    ///
    /// Returns whether the time was over. Spurious wake-ups happen.
    pub fn wait_for<'a, T: ?Sized>(&self, guard: Guard<'a, T>, time: Duration) -> (Guard<'a, T>, bool) {
        self.wait_until(guard, Instant::now().checked_add(time))
    }

    /// Like [`wait_for`](Self::wait_for), without a time limit.
    pub fn wait<'a, T: ?Sized>(&self, guard: Guard<'a, T>) -> Guard<'a, T> {
        self.wait_until(guard, None).0
    }

    fn wait_until<'a, T: ?Sized>(&self, guard: Guard<'a, T>, until: Option<Instant>) -> (Guard<'a, T>, bool) {
        let (lock, notified) = (guard.lock, self.0.load(Relaxed));
        drop(guard);
        if is_untold() {
            untold_child_is_stuck();
        }
        let ended = sys::sleep_while(&self.0, notified, until);
        (lock.lock(), ended == sys::Ended::TimedOut)
    }

    /// Wakes one sleeper.
    pub fn notify_one(&self) {
        self.0.fetch_add(1, Relaxed);
        sys::wake(&self.0);
    }

    /// Wakes all sleepers.
    pub fn notify_all(&self) {
        self.0.fetch_add(1, Relaxed);
        sys::wake_all(&self.0);
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}
