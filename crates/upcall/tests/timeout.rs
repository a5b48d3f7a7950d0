//! Waits with a time limit, and timers beside other futures.

mod common;

use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Counted, FIBERS, Log, time_limit};
#[cfg(unix)]
use common::{child, part, stderr_of_success};
use futures::future::{join, select};
use futures_lite::future::or;
use upcall::{downcall_on_fiber, enter, timeout, timer, wait};

const TICK: Duration = Duration::from_millis(5);

#[test]
fn what_is_ready_in_time_is_given_and_what_is_not_is_dropped() {
    let _limit = time_limit("what_is_ready_in_time_is_given_and_what_is_not_is_dropped");
    assert_eq!(timeout(Duration::ZERO, ready(7)), Ok(7));
    assert_eq!(timeout(Duration::MAX, async { timer(TICK).await }), Ok(()));
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Counted(dropped.clone());
    let start = Instant::now();
    let elapsed = timeout(TICK, async move {
        let _counted = counted;
        pending::<()>().await
    });
    assert!(start.elapsed() >= TICK);
    assert_eq!(elapsed.unwrap_err().to_string(), "what was waited for was not ready in time");
    assert_eq!(dropped.load(SeqCst), 1);
    assert!(timeout(Duration::ZERO, pending::<()>()).is_err());
}

#[test]
fn a_channel_is_as_it_was_after_a_timeout() {
    let _limit = time_limit("a_channel_is_as_it_was_after_a_timeout");
    let (sender, receiver) = async_channel::bounded(1);
    for n in 0..100 {
        assert!(timeout(Duration::from_micros(n), receiver.recv()).is_err());
    }
    sender.try_send(7).unwrap();
    assert_eq!(timeout(TICK, receiver.recv()), Ok(Ok(7)));
}

#[test]
fn in_a_fiber_only_the_fiber_waits() {
    let _limit = time_limit("in_a_fiber_only_the_fiber_waits");
    let runtime = FIBERS.local_runtime().unwrap();
    let log = Log::default();
    let (own, others) = (log.clone(), log.clone());
    let waits = runtime.spawn_local(move || {
        // With C on the fiber's stack, too.
        let elapsed = downcall_on_fiber(|| enter(|| timeout(4 * TICK, pending::<()>()).is_err()));
        own.add("its time is over");
        elapsed.unwrap()
    });
    runtime
        .spawn_local(move || {
            timeout(TICK, pending::<()>()).unwrap_err();
            others.add("another's time is over");
        })
        .join()
        .unwrap();
    assert!(waits.join().unwrap());
    assert_eq!(log.take(), ["another's time is over", "its time is over"]);
}

#[test]
fn a_timer_is_one_of_several_futures() {
    let _limit = time_limit("a_timer_is_one_of_several_futures");
    let start = Instant::now();
    wait(join(timer(TICK), timer(3 * TICK)));
    assert!(start.elapsed() >= 3 * TICK);
    wait(select(timer(TICK), timer(Duration::MAX)));
    assert_eq!(wait(or(async { timer(Duration::MAX).await }, ready(()))), ());
    // After its time, a timer polled again is ready again.
    let mut again = timer(TICK);
    wait(&mut again);
    wait(again);
}

#[test]
fn a_timer_wakes_who_polled_it_last() {
    let _limit = time_limit("a_timer_wakes_who_polled_it_last");
    struct Counts(AtomicUsize);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let (first, last) = (Arc::new(Counts(AtomicUsize::new(0))), Arc::new(Counts(AtomicUsize::new(0))));
    let mut timer = timer(TICK);
    for counts in [&first, &last] {
        let waker = Waker::from(counts.clone());
        assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    while last.0.load(SeqCst) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(first.0.load(SeqCst), 0);
    // A timer polled on one thread may be dropped on another.
    thread::spawn(move || drop(timer)).join().unwrap();
}

/// Where the test harness itself does without threads.
#[cfg(unix)]
#[test]
fn without_a_thread_for_timers_other_futures_are_polled() {
    const NAME: &str = "without_a_thread_for_timers_other_futures_are_polled";
    if part().is_none() {
        // No address space is large enough for this stack.
        let stack = if usize::BITS == 64 { "140737488355328" } else { "4026531840" };
        stderr_of_success(&child(NAME, "run", &[("RUST_MIN_STACK", stack)]));
        return;
    }
    assert!(thread::Builder::new().spawn(|| ()).is_err());
    let (sender, receiver) = async_channel::bounded(1);
    let send = move || {
        thread::sleep(20 * TICK);
        sender.try_send(7).unwrap();
    };
    thread::Builder::new().stack_size(1 << 20).spawn(send).unwrap();
    assert_eq!(timeout(Duration::from_secs(3600), receiver.recv()), Ok(Ok(7)));
    let start = Instant::now();
    assert!(timeout(4 * TICK, pending::<()>()).is_err());
    assert!(start.elapsed() >= 4 * TICK);
}

#[cfg(unix)]
#[test]
fn a_timeout_goes_on_in_the_child_of_a_fork() {
    const NAME: &str = "a_timeout_goes_on_in_the_child_of_a_fork";
    if part().is_none() {
        stderr_of_success(&child(NAME, "run", &[]));
        return;
    }
    timeout(TICK, pending::<()>()).unwrap_err();
    let mut began = std::pin::pin!(timer(4 * TICK));
    let polled =
        wait(std::future::poll_fn(|context| std::task::Poll::Ready(began.as_mut().poll(context).is_ready())));
    assert!(!polled);
    // SAFETY: the child calls only upcall, which supports children of a fork, and `_exit`.
    let child = unsafe { libc::fork() };
    wait(began);
    timeout(TICK, pending::<()>()).unwrap_err();
    if child == 0 {
        // SAFETY: `_exit` takes no pointers, and runs no exit handlers of the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing, and `child` is an unreaped child of this process.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
}
