//! loom's models of our protocols made of atomics: each runs in every order of the threads' steps
//! allowed by the memory model.
//!
//! `ci/loom.sh` runs loom. Joining is not checked: async-task does that.

use std::collections::VecDeque;
use std::ptr::NonNull;

use loom::sync::atomic::Ordering::{Relaxed, SeqCst};
use loom::sync::atomic::{AtomicPtr, AtomicUsize};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::mailbox::{Attention, Mailbox};
use crate::sync::{Event, Linked, Remote};
use crate::thread::Parker;
use crate::thread::deferred_wake::DeferredWake;

fn parker() -> &'static Parker {
    Box::leak(Box::new(Parker::new()))
}

/// A pointer to nothing, with a number for its address.
fn item(number: usize) -> NonNull<()> {
    NonNull::new(number as *mut ()).expect("numbers from 1")
}

/// A number with a link, for a list.
struct Number {
    number: usize,
    link: AtomicPtr<()>,
}

impl Number {
    fn new(number: usize) -> Box<Self> {
        Box::new(Self { number, link: AtomicPtr::new(std::ptr::null_mut()) })
    }
}

impl Linked for Box<Number> {
    fn into_raw(self) -> NonNull<()> {
        NonNull::from(Box::leak(self)).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller guarantees that `into_raw` gave the pointer, from a box, and that it
        // is converted back once.
        unsafe { Box::from_raw(raw.cast().as_ptr()) }
    }

    unsafe fn link_of<'a>(raw: NonNull<()>) -> &'a AtomicPtr<()> {
        // SAFETY: the caller guarantees that `into_raw` gave the pointer. Until it is converted
        // back, it is not a box, and its memory stays.
        unsafe { &raw.cast::<Number>().as_ref().link }
    }
}

#[test]
fn what_was_done_before_unpark_is_seen_after_park() {
    loom::model(|| {
        let parker = parker();
        let data = Arc::new(AtomicUsize::new(0));
        let done = data.clone();
        let other = thread::spawn(move || {
            done.store(1, Relaxed);
            parker.unpark();
        });
        assert!(parker.park(None));
        assert_eq!(data.load(Relaxed), 1);
        other.join().unwrap();
    });
}

#[test]
fn two_unparks_wake_for_both() {
    loom::model(|| {
        let parker = parker();
        let count = Arc::new(AtomicUsize::new(0));
        let others = [(); 2].map(|()| {
            let count = count.clone();
            thread::spawn(move || {
                count.fetch_add(1, Relaxed);
                parker.unpark();
            })
        });
        while count.load(Relaxed) < 2 {
            parker.park(None);
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn what_is_pushed_is_fetched_by_an_owner_that_parks() {
    loom::model(|| {
        let (parker, remote) = (parker(), Arc::new(Remote::new()));
        let others = [1, 2].map(|number| {
            let remote = remote.clone();
            thread::spawn(move || {
                remote.push(Number::new(number));
                parker.unpark();
            })
        });
        let mut fetched = Vec::new();
        loop {
            remote.fetch(&mut fetched);
            if fetched.len() == 2 {
                break;
            }
            parker.park(None);
        }
        let mut fetched: Vec<_> = fetched.into_iter().map(|item: Box<Number>| item.number).collect();
        fetched.sort_unstable();
        assert_eq!(fetched, [1, 2]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Does the same steps as `LocalRuntime::run_ready`.
fn run_ready(event: &Event, remote: &Remote<Box<Number>>) -> usize {
    let mut fetched = Vec::new();
    remote.fetch(&mut fetched);
    event.clear();
    if remote.has_some() {
        event.signal();
    }
    fetched.len()
}

#[test]
fn an_event_is_readable_when_there_is_something_and_then_no_more() {
    loom::model(|| {
        let event = Arc::new(Event::new().unwrap());
        let remote = Arc::new(Remote::new());
        let (its_event, its_remote) = (event.clone(), remote.clone());
        let other = thread::spawn(move || {
            its_remote.push(Number::new(1));
            its_event.signal();
        });
        let ran = run_ready(&event, &remote);
        other.join().unwrap();
        assert!(ran == 1 || event.is_readable());
        // A late signal wakes in vain once.
        assert_eq!(ran + run_ready(&event, &remote), 1);
        run_ready(&event, &remote);
        assert!(!event.is_readable());
    });
}

#[test]
fn what_is_kept_has_one_taker() {
    loom::model(|| {
        let kept = Arc::new(Mailbox::nothing());
        assert!(kept.replace(item(1)).is_none());
        let its = kept.clone();
        let other = thread::spawn(move || its.take().map_or(0, |item| item.as_ptr() as usize));
        let mine = kept.replace(item(2)).map_or(0, |item| item.as_ptr() as usize);
        let last = kept.take().map_or(0, |item| item.as_ptr() as usize);
        let theirs = other.join().unwrap();
        assert_eq!(mine + theirs + last, 3, "each of 1 and 2 was taken once: {mine}, {theirs}, {last}");
    });
}

#[test]
fn the_watcher_sees_what_is_kept_before_it_sleeps() {
    loom::model(|| {
        let attention = Arc::new(Attention::new(parker()));
        let kept = Arc::new(Mailbox::nothing());
        let (its_attention, its) = (attention.clone(), kept.clone());
        let spawner = thread::spawn(move || {
            its.replace(item(1));
            its_attention.call();
        });
        // If the call is missed, this sleeps for ever, and loom reports it.
        while kept.take().is_none() {
            attention.rest(None, || !kept.is_nothing());
        }
        spawner.join().unwrap();
    });
}

#[test]
fn a_wake_that_is_put_off_is_made_by_the_guard_that_ends() {
    fn call() {}
    loom::model(|| {
        let deferred = Arc::new(DeferredWake::for_model());
        deferred.set_guard(Some(call));
        let (sleeper, its) = (parker(), deferred.clone());
        let waker = thread::spawn(move || its.defer(sleeper));
        // The watcher's last steps.
        deferred.set_guard(None);
        deferred.flush();
        let was_deferred = waker.join().unwrap();
        assert!(!(was_deferred && deferred.is_any()), "nobody is left to make it");
    });
}

/// The state under the lock of `workers.rs`.
#[derive(Default)]
struct Workers {
    waiting: VecDeque<usize>,
    idle: Option<&'static Parker>,
    closed: bool,
}

#[test]
fn a_worker_that_turns_idle_misses_neither_work_nor_the_end() {
    loom::model(|| {
        let workers = Arc::new(Mutex::new(Workers::default()));
        let parker = parker();
        let its = workers.clone();
        let worker = thread::spawn(move || {
            let mut done = 0;
            loop {
                let mut workers = its.lock().unwrap();
                if workers.waiting.pop_front().is_some() {
                    done += 1;
                    continue;
                }
                if workers.closed {
                    return done;
                }
                workers.idle = Some(parker);
                drop(workers);
                parker.park(None);
                its.lock().unwrap().idle = None;
            }
        });
        let mut locked = workers.lock().unwrap();
        locked.waiting.push_back(1);
        let idle = locked.idle.take();
        drop(locked);
        if let Some(idle) = idle {
            idle.unpark();
        }
        workers.lock().unwrap().closed = true;
        parker.unpark();
        assert_eq!(worker.join().unwrap(), 1);
    });
}

#[test]
fn a_wait_inside_another_leaves_the_outer_one_awake() {
    loom::model(|| {
        let parker = parker();
        let woken = Arc::new(AtomicUsize::new(0));
        // 1 wakes the outer wait, 2 the inner one, in any order.
        let others = [1, 2].map(|what| {
            let woken = woken.clone();
            thread::spawn(move || {
                woken.fetch_or(what, SeqCst);
                parker.unpark();
            })
        });
        while woken.load(SeqCst) & 2 == 0 {
            parker.park(None);
        }
        // The drop of `Waiting` does this: the inner wait may have consumed the outer one's
        // wake-up.
        parker.unpark();
        loop {
            parker.park(None);
            if woken.load(SeqCst) & 1 != 0 {
                break;
            }
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}
