//! Sleeping on a number: the contract of every system's implementation.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use stackbounds::for_upcall::{Condition, Ended, Lock, sleep_while, wake};

#[test]
fn nobody_sleeps_on_another_value() {
    let number = AtomicU32::new(1);
    assert_eq!(sleep_while(&number, 0, None), Ended::Changed);
    assert_eq!(sleep_while(&number, 0, Some(Instant::now())), Ended::Changed);
}

#[test]
fn no_sleep_ends_before_its_deadline() {
    let number = AtomicU32::new(0);
    let mut timed_out = 0;
    for micros in (0..20_000).step_by(317) {
        let deadline = Instant::now() + Duration::from_micros(micros);
        if sleep_while(&number, 0, Some(deadline)) == Ended::TimedOut {
            assert!(Instant::now() >= deadline, "{micros} µs");
            timed_out += 1;
        }
    }
    assert!(timed_out > 50, "{timed_out} sleeps in 64 reached the deadline");
    // A deadline in the past is over at once.
    assert_eq!(sleep_while(&number, 0, Some(Instant::now())), Ended::TimedOut);
}

#[test]
fn a_wake_ends_a_sleep_with_and_without_a_deadline() {
    // Longer than the systems' own limits of one sleep.
    let far = Instant::now().checked_add(Duration::from_secs(100 * 24 * 3600));
    for deadline in [None, far] {
        let number = AtomicU32::new(0);
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while number.load(Relaxed) == 0 {
                    assert_eq!(sleep_while(&number, 0, deadline), Ended::Changed);
                }
            });
            thread::sleep(Duration::from_millis(20));
            assert!(!sleeper.is_finished());
            number.store(1, Relaxed);
            wake(&number);
        });
    }
}

#[test]
fn notifications_reach_one_sleeper_or_all() {
    const SLEEPERS: u32 = 4;
    let (lock, changed) = (Lock::new([0_u32; 2]), Condition::new());
    thread::scope(|scope| {
        for _ in 0..SLEEPERS {
            scope.spawn(|| {
                let mut guard = lock.lock();
                guard[0] += 1;
                while guard[1] == 0 {
                    guard = changed.wait(guard);
                }
                guard[1] -= 1;
            });
        }
        while lock.lock()[0] < SLEEPERS {
            thread::yield_now();
        }
        lock.lock()[1] = 1;
        changed.notify_one();
        while lock.lock()[1] != 0 {
            thread::sleep(Duration::from_millis(1));
        }
        lock.lock()[1] = SLEEPERS - 1;
        changed.notify_all();
    });
    assert_eq!(*lock.lock(), [SLEEPERS, 0]);
}

#[test]
fn threads_that_contend_for_a_lock_take_turns() {
    const TIMES: u32 = 20_000;
    let lock = Lock::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..TIMES {
                    let mut count = lock.lock();
                    *count += 1;
                    if i % 4096 == 0 {
                        // Others fall asleep.
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
    });
    assert_eq!(*lock.lock(), 4 * TIMES);
}
