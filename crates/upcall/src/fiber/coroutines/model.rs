//! loom's checks of `waits`: no wake is lost between the wakers and the host's loop.
//!
//! loom runs each model in every order of the threads' steps allowed by the memory model;
//! `ci/loom.sh` runs loom.

use std::panic::Location;
use std::ptr::{self, NonNull};
use std::task::Waker;

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::thread;

use super::waits::{self, CoroutineWaits, Taken};
use super::{Coroutine, Host, Resumed};
use crate::function::Function;

struct NoHost;

// SAFETY: it is never asked for anything.
unsafe impl Host for NoHost {
    fn current(&self) -> Option<Coroutine> {
        None
    }

    fn suspend(&self, _: Coroutine) -> Resumed {
        Resumed::ToGoOn
    }
}

fn coroutine() -> Coroutine {
    Coroutine::new(NonNull::<u8>::dangling().cast())
}

/// Has another thread count up and call the waker. Returns the count.
fn woken_by_another(waker: &Waker) -> (Arc<AtomicUsize>, thread::JoinHandle<()>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, waker) = (count.clone(), waker.clone());
    let other = thread::spawn(move || {
        counted.fetch_add(1, Release);
        waker.wake();
    });
    (count, other)
}

/// Waits until `is_ready`, as `suspend_until` does. In place of the host, a loop sleeps until the
/// descriptor is readable.
fn wait_until(waits: &CoroutineWaits, wait: &Taken, is_ready: impl Fn() -> bool) {
    let event = waits.event().unwrap();
    loop {
        wait.begin_poll();
        if is_ready() {
            return;
        }
        wait.suspend(coroutine(), Location::caller(), Function::of::<()>());
        while waits.next_ready().is_none() {
            while !event.is_readable() {
                thread::yield_now();
            }
        }
    }
}

fn check_quiet(waits: &CoroutineWaits) {
    assert!(waits.next_ready().is_none());
    assert!(!waits.event().unwrap().is_readable());
}

#[test]
fn a_wake_makes_the_host_resume_the_coroutine() {
    loom::model(|| {
        let waits = CoroutineWaits::take(1);
        let wait = waits.begin(&NoHost).unwrap();
        let (count, other) = woken_by_another(&wait.waker());
        wait_until(waits, &wait, || count.load(Acquire) == 1);
        other.join().unwrap();
        drop(wait);
        check_quiet(waits);
    });
}

#[test]
fn two_wakes_of_one_wait_are_both_seen() {
    loom::model(|| {
        let waits = CoroutineWaits::take(1);
        let wait = waits.begin(&NoHost).unwrap();
        let (first, one) = woken_by_another(&wait.waker());
        let (second, other) = woken_by_another(&wait.waker());
        wait_until(waits, &wait, || first.load(Acquire) + second.load(Acquire) == 2);
        one.join().unwrap();
        other.join().unwrap();
        drop(wait);
        check_quiet(waits);
    });
}

#[test]
fn a_late_wake_of_an_ended_wait_does_not_hide_the_next_ones() {
    loom::model(|| {
        let waits = CoroutineWaits::take(1);
        let ended = waits.begin(&NoHost).unwrap();
        let (_, late) = woken_by_another(&ended.waker());
        drop(ended);
        let wait = waits.begin(&NoHost).unwrap();
        let (count, other) = woken_by_another(&wait.waker());
        wait_until(waits, &wait, || count.load(Acquire) == 1);
        late.join().unwrap();
        other.join().unwrap();
        drop(wait);
        check_quiet(waits);
    });
}

#[test]
fn a_descriptor_made_late_shows_earlier_wakes() {
    loom::model(|| {
        let waits = CoroutineWaits::take(1);
        let wait = waits.begin(&NoHost).unwrap();
        wait.begin_poll();
        wait.suspend(coroutine(), Location::caller(), Function::of::<()>());
        let (_, other) = woken_by_another(&wait.waker());
        let event = waits.event().unwrap();
        while !event.is_readable() {
            thread::yield_now();
        }
        assert!(waits.next_ready().is_some());
        other.join().unwrap();
    });
}

/// A thread of the parent was about to list one wait, and had listed another. In the child, the
/// list has each of them once, whatever the child's threads wake meanwhile.
#[test]
fn a_child_lists_each_wait_once() {
    loom::model(|| {
        let waits = CoroutineWaits::take(1);
        let suspended = [(); 3].map(|()| {
            let wait = waits.begin(&NoHost).unwrap();
            wait.begin_poll();
            wait.suspend(coroutine(), Location::caller(), Function::of::<()>());
            wait
        });
        let [lost, listed, _] = &suspended;
        assert!(lost.begin_wake());
        listed.waker().wake_by_ref();

        waits::forget_others(ptr::from_ref(waits).cast());
        let wakers = suspended.each_ref().map(|wait| Waker::clone(&wait.waker()));
        let other = thread::spawn(move || wakers.into_iter().for_each(Waker::wake));
        waits.look_again();
        other.join().unwrap();

        let named = [(); 3].map(|()| ptr::from_ref(waits.next_ready().unwrap()));
        assert!(named[0] != named[1] && named[1] != named[2] && named[2] != named[0]);
        check_quiet(waits);
    });
}
