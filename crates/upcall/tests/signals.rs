//! Signals on upcall's threads and fibers: their signal masks, and the limits of handlers there.
//!
//! Each case runs in its own process. The file is long because all cases share its helpers.
#![cfg(unix)]

mod common;

use std::ffi::c_int;
use std::future::poll_fn;
use std::mem::{MaybeUninit, zeroed};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{FIBERS, child, part, stderr_of_success, time_limit};
use futures::task::AtomicWaker;
use upcall::{StackChoice, blocking, downcall, downcall_on_fiber, enter, entry, sleep, wait, yield_now};

/// Runs a case: the parent starts a child process of `test`, and the child calls `run`.
fn in_child(test: &'static str, variables: &[(&str, &str)], run: impl FnOnce()) {
    if part().is_none() {
        stderr_of_success(&child(test, "run", variables));
    } else {
        let _limit = time_limit(test);
        run();
    }
}

const ONE_WORKER: &[(&str, &str)] = &[("UPCALL_WORKERS", "1")];

/// The set of `signals`.
fn set_of(signals: &[c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and the later calls change it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        signals.iter().for_each(|&signal| _ = libc::sigaddset(set.as_mut_ptr(), signal));
        set.assume_init()
    }
}

fn change_mask(how: c_int, signals: &[c_int]) {
    // SAFETY: `set_of` returns a valid set, and the call reads it only.
    assert_eq!(unsafe { libc::pthread_sigmask(how, &set_of(signals), ptr::null_mut()) }, 0);
}

/// The signals blocked by the calling thread, of those used by the tests.
fn blocked() -> Vec<c_int> {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: a null set changes nothing, and `mask` is written before it is read.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
        let all = [libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPIPE, libc::SIGTERM, libc::SIGCHLD];
        all.into_iter().filter(|&signal| libc::sigismember(mask.as_ptr(), signal) == 1).collect()
    }
}

fn handle(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: all-zero is a valid `sigaction`, and the tests' handlers may run at any instruction.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler as *const () as usize, flags);
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

fn this_thread() -> usize {
    // SAFETY: `pthread_self` has no preconditions.
    unsafe { libc::pthread_self() as usize }
}

fn send(thread: usize, signal: c_int) {
    // SAFETY: the tests send signals to live threads only.
    assert_eq!(unsafe { libc::pthread_kill(thread as libc::pthread_t, signal) }, 0);
}

/// Waits until `is` holds.
fn until(is: impl Fn() -> bool) {
    while !is() {
        thread::yield_now();
    }
}

/// Runs `f` in each kind of place for users' code, and passes the place's name.
///
/// The places are this thread, a thread of the host, a worker's fiber, C called by a fiber, and so
/// on.
fn everywhere(f: fn(&str)) {
    f("this thread");
    thread::spawn(move || f("a thread")).join().unwrap();
    enter(|| f("an upcall")).unwrap();
    entry().stack(StackChoice::Pooled).enter(|| f("a pooled upcall")).unwrap();
    FIBERS.spawn(move || f("a fiber")).join().unwrap();
    FIBERS.spawn(move || downcall(|| f("C of a fiber"))).join().unwrap();
    FIBERS.spawn(move || downcall_on_fiber(|| f("C on a fiber"))).join().unwrap();
    let nested = move || downcall_on_fiber(|| enter(|| f("an upcall on a fiber")).unwrap());
    FIBERS.spawn(nested).join().unwrap();
    blocking(move || f("a blocking call"));
    FIBERS.spawn(move || blocking(move || f("a fiber's blocking call"))).join().unwrap();
    let local = FIBERS.local_runtime().unwrap();
    local.spawn_local(move || f("a local fiber")).join().unwrap();
}

/* ---- masks ---- */

#[test]
fn fibers_and_blocking_calls_block_nothing() {
    in_child("fibers_and_blocking_calls_block_nothing", &[], || {
        everywhere(|place| assert_eq!(blocked(), [], "{place}"));
    });
}

#[test]
fn workers_have_the_mask_of_who_started_the_first() {
    in_child("workers_have_the_mask_of_who_started_the_first", &[("UPCALL_WORKERS", "2")], || {
        // Like a host with one thread for signals, or with a signalfd.
        change_mask(libc::SIG_BLOCK, &[libc::SIGTERM]);
        FIBERS.spawn(|| assert_eq!(blocked(), [libc::SIGTERM])).join().unwrap();
        change_mask(libc::SIG_SETMASK, &[libc::SIGUSR1]);
        let (sender, receiver) = mpsc::channel();
        let blocks: Vec<_> = (0..8)
            .map(|number| {
                let sender = sender.clone();
                FIBERS.spawn(move || {
                    assert_eq!(blocked(), [libc::SIGTERM], "fiber {number}");
                    // A fiber changes its worker's mask, and no other thread inherits the change.
                    change_mask(libc::SIG_BLOCK, &[libc::SIGINT]);
                    FIBERS.spawn(|| ());
                    sender.send(this_thread()).unwrap();
                    // Blocks the worker, so another worker starts in its place.
                    thread::sleep(Duration::from_millis(30));
                    change_mask(libc::SIG_UNBLOCK, &[libc::SIGINT]);
                })
            })
            .collect();
        blocks.into_iter().for_each(|fiber| fiber.join().unwrap());
        drop(sender);
        let mut threads: Vec<_> = receiver.iter().collect();
        threads.sort_unstable();
        threads.dedup();
        assert!(threads.len() > 2, "the watcher has started some: {threads:?}");
    });
}

#[test]
fn a_blocking_call_has_the_mask_of_its_caller() {
    in_child("a_blocking_call_has_the_mask_of_its_caller", ONE_WORKER, || {
        for mask in [&[libc::SIGUSR1][..], &[], &[libc::SIGINT, libc::SIGTERM]] {
            change_mask(libc::SIG_SETMASK, mask);
            let found = blocking(|| {
                let found = blocked();
                change_mask(libc::SIG_BLOCK, &[libc::SIGCHLD]);
                found
            });
            assert_eq!(found, mask);
        }
        change_mask(libc::SIG_SETMASK, &[]);
        let worker = FIBERS.spawn(|| {
            change_mask(libc::SIG_BLOCK, &[libc::SIGUSR2]);
            let found = blocking(blocked);
            change_mask(libc::SIG_UNBLOCK, &[libc::SIGUSR2]);
            found
        });
        assert_eq!(worker.join().unwrap(), [libc::SIGUSR2]);
    });
}

/// A waker that starts a thread, as a thread pool's waker may.
struct StartsThread(mpsc::Sender<Vec<c_int>>);

impl futures::task::ArcWake for StartsThread {
    fn wake_by_ref(this: &std::sync::Arc<Self>) {
        let sender = this.0.clone();
        thread::spawn(move || sender.send(blocked()));
    }
}

#[test]
fn a_thread_that_a_waker_starts_has_the_mask_of_the_host() {
    in_child("a_thread_that_a_waker_starts_has_the_mask_of_the_host", &[], || {
        change_mask(libc::SIG_BLOCK, &[libc::SIGTERM]);
        let (sender, receiver) = mpsc::channel();
        let waker = futures::task::waker(std::sync::Arc::new(StartsThread(sender)));
        let mut fiber = Box::pin(FIBERS.fiber(|| sleep(Duration::from_millis(2))));
        let context = &mut std::task::Context::from_waker(&waker);
        assert!(std::future::Future::poll(fiber.as_mut(), context).is_pending());
        assert_eq!(receiver.recv().unwrap(), [libc::SIGTERM]);
        wait(fiber);
    });
}

/* ---- children ---- */

/// Sends SIGTERM to a new child at once, and asserts that it dies of the signal.
fn terminated(place: &str) {
    use std::os::unix::process::ExitStatusExt;
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    assert!(mask.is_none_or(|mask| mask.trim().bytes().all(|digit| digit == b'0')), "{place}: {mask:?}");
    // SAFETY: `child` is an unreaped child of this process, so its number is not reused.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM), "{place}");
}

#[test]
fn children_can_be_terminated() {
    in_child("children_can_be_terminated", &[], || everywhere(terminated));
}

/* ---- handlers ---- */

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static HANDLED_ON: AtomicUsize = AtomicUsize::new(0);

extern "C" fn counts(_: c_int) {
    HANDLED_ON.store(this_thread(), SeqCst);
    HANDLED.fetch_add(1, SeqCst);
}

#[test]
fn raised_signals_are_handled_where_they_are_raised() {
    in_child("raised_signals_are_handled_where_they_are_raised", &[], || {
        handle(libc::SIGUSR1, counts, libc::SA_RESTART);
        handle(libc::SIGUSR2, counts, libc::SA_ONSTACK);
        handle(libc::SIGPIPE, counts, libc::SA_RESTART);
        everywhere(|place| {
            let before = HANDLED.load(SeqCst);
            let mut pipe = [0; 2];
            // SAFETY: the handlers only use atomics, and the descriptors of `pipe` belong to this
            // code.
            unsafe {
                libc::raise(libc::SIGUSR1);
                assert_eq!(HANDLED_ON.load(SeqCst), this_thread(), "{place}");
                libc::raise(libc::SIGUSR2);
                assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
                libc::close(pipe[0]);
                assert_eq!(libc::write(pipe[1], c"x".as_ptr().cast(), 1), -1);
                libc::close(pipe[1]);
            }
            assert_eq!(HANDLED.load(SeqCst) - before, 3, "{place}");
        });
    });
}

extern "C" fn makes_upcalls(_: c_int) {
    let pooled = || entry().stack(StackChoice::Pooled).enter(|| 3).is_ok_and(|three| three == 3);
    let calls = || enter(|| downcall(|| 4)).is_ok_and(|four| four == 4);
    if enter(|| 2).is_ok_and(|two| two == 2) && pooled() && calls() {
        HANDLED.fetch_add(1, SeqCst);
    }
}

#[test]
fn handlers_upcalls_are_served_on_fibers_and_workers() {
    in_child("handlers_upcalls_are_served_on_fibers_and_workers", ONE_WORKER, || {
        upcall::attach().unwrap();
        for flags in [0, libc::SA_ONSTACK] {
            handle(libc::SIGUSR1, makes_upcalls, flags);
            FIBERS
                .spawn(|| {
                    let before = HANDLED.load(SeqCst);
                    for _ in 0..100 {
                        // SAFETY: the handler makes upcalls, and upcall allows them at any
                        // instruction.
                        unsafe { libc::raise(libc::SIGUSR1) };
                        // SAFETY: the handler makes upcalls, and upcall allows them at any
                        // instruction.
                        downcall(|| unsafe { libc::raise(libc::SIGUSR1) });
                        yield_now();
                    }
                    assert_eq!(HANDLED.load(SeqCst) - before, 200);
                })
                .join()
                .unwrap();
            // The worker is between two fibers, or asleep.
            let worker = FIBERS.spawn(this_thread).join().unwrap();
            for _ in 0..1000 {
                let before = HANDLED.load(SeqCst);
                send(worker, libc::SIGUSR1);
                until(|| HANDLED.load(SeqCst) != before);
            }
        }
    });
}

/// Counts rings by a handler, and wakes a fiber waiting for the next.
struct Bell {
    rung: AtomicUsize,
    waker: AtomicWaker,
}

static BELL: Bell = Bell { rung: AtomicUsize::new(0), waker: AtomicWaker::new() };

impl Bell {
    /// Waits until the bell has been rung more than `times` times.
    fn wait(&self, times: usize) {
        wait(poll_fn(|context| {
            self.waker.register(context.waker());
            if self.rung.load(SeqCst) > times { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

extern "C" fn rings(_: c_int) {
    BELL.rung.fetch_add(1, SeqCst);
    BELL.waker.wake();
}

/// Spawns a fiber that answers `rounds` rings. Returns its handle, and its thread.
fn answer(rounds: usize, answered: &'static AtomicUsize) -> (upcall::JoinHandle<()>, usize) {
    let (sender, receiver) = mpsc::channel();
    let fiber = FIBERS.spawn(move || {
        sender.send(this_thread()).unwrap();
        for round in 0..rounds {
            BELL.wait(round);
            answered.store(round + 1, SeqCst);
        }
    });
    (fiber, receiver.recv().unwrap())
}

#[test]
fn a_handler_wakes_fibers_of_the_worker_that_it_interrupts() {
    in_child("a_handler_wakes_fibers_of_the_worker_that_it_interrupts", ONE_WORKER, || {
        const ROUNDS: usize = 2000;
        static ANSWERED: AtomicUsize = AtomicUsize::new(0);
        static ENDS: AtomicBool = AtomicBool::new(false);
        handle(libc::SIGUSR1, rings, libc::SA_RESTART);
        let (fiber, worker) = answer(2 * ROUNDS, &ANSWERED);
        let ring = |round: usize| {
            send(worker, libc::SIGUSR1);
            // If a wake were lost, the time limit would end the test.
            until(|| ANSWERED.load(SeqCst) == round + 1);
        };
        // The worker sleeps, or is about to.
        (0..ROUNDS).for_each(ring);
        // The worker changes its list of ready fibers all the time.
        let others = [(); 3].map(|()| {
            FIBERS.spawn(|| {
                while !ENDS.load(SeqCst) {
                    yield_now()
                }
            })
        });
        (ROUNDS..2 * ROUNDS).for_each(ring);
        ENDS.store(true, SeqCst);
        others.into_iter().for_each(|other| other.join().unwrap());
        fiber.join().unwrap();
    });
}

#[test]
fn a_handler_wakes_fibers_of_a_thread_that_is_blocked_in_a_wait() {
    in_child("a_handler_wakes_fibers_of_a_thread_that_is_blocked_in_a_wait", &[], || {
        const ROUNDS: usize = 2000;
        static ANSWERED: AtomicUsize = AtomicUsize::new(0);
        handle(libc::SIGUSR1, rings, libc::SA_RESTART);
        let local = FIBERS.local_runtime().unwrap();
        let fiber = local.spawn_local(|| {
            for round in 0..ROUNDS {
                BELL.wait(round);
                ANSWERED.store(round + 1, SeqCst);
            }
        });
        let main = this_thread();
        let rings = thread::spawn(move || {
            for round in 0..ROUNDS {
                send(main, libc::SIGUSR1);
                until(|| ANSWERED.load(SeqCst) == round + 1);
            }
        });
        fiber.join().unwrap();
        rings.join().unwrap();
    });
}

static SPAWNED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn spawns(_: c_int) {
    let _ = enter(|| drop(FIBERS.spawn(|| SPAWNED.fetch_add(1, SeqCst))));
}

#[test]
fn a_fiber_that_a_handler_spawns_on_a_sleeping_worker_begins() {
    in_child("a_fiber_that_a_handler_spawns_on_a_sleeping_worker_begins", ONE_WORKER, || {
        handle(libc::SIGUSR1, spawns, libc::SA_RESTART);
        let worker = FIBERS.spawn(this_thread).join().unwrap();
        for round in 1..=100 {
            // Lets the worker fall asleep, outside the allocator: the handler allocates.
            thread::sleep(Duration::from_millis(1));
            send(worker, libc::SIGUSR1);
            until(|| SPAWNED.load(SeqCst) == round);
        }
    });
}

#[test]
fn a_handler_spawns_in_the_middle_of_a_fiber_that_blocks() {
    in_child("a_handler_spawns_in_the_middle_of_a_fiber_that_blocks", ONE_WORKER, || {
        handle(libc::SIGUSR1, spawns, libc::SA_RESTART);
        let (ends, end) = async_channel::bounded::<()>(1);
        let (sender, receiver) = mpsc::channel();
        let fiber = FIBERS.spawn(move || {
            // A wait on C's stack blocks the worker.
            downcall(|| {
                enter(|| {
                    sender.send(this_thread()).unwrap();
                    wait(end.recv()).unwrap();
                })
            })
        });
        let worker = receiver.recv().unwrap();
        thread::sleep(Duration::from_millis(5));
        send(worker, libc::SIGUSR1);
        until(|| SPAWNED.load(SeqCst) == 1);
        ends.send_blocking(()).unwrap();
        fiber.join().unwrap().unwrap();
    });
}

static WAITS: AtomicBool = AtomicBool::new(false);
static TOLD: AtomicBool = AtomicBool::new(false);
static OTHER_RAN: AtomicBool = AtomicBool::new(false);

extern "C" fn waits(_: c_int) {
    let waited = enter(|| {
        WAITS.store(true, SeqCst);
        wait(poll_fn(|context| {
            BELL.waker.register(context.waker());
            if TOLD.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        }));
        yield_now();
        assert!(!OTHER_RAN.load(SeqCst), "something else ran inside the handler");
    });
    waited.unwrap();
    HANDLED.fetch_add(1, SeqCst);
}

#[test]
fn a_wait_in_a_handler_blocks_the_thread_and_runs_nothing() {
    in_child("a_wait_in_a_handler_blocks_the_thread_and_runs_nothing", ONE_WORKER, || {
        for (round, flags) in [0, libc::SA_ONSTACK].into_iter().enumerate() {
            handle(libc::SIGUSR1, waits, flags);
            for on_fiber in [true, false] {
                [&WAITS, &TOLD, &OTHER_RAN].into_iter().for_each(|flag| flag.store(false, SeqCst));
                let fiber = FIBERS.spawn(move || {
                    // A fiber that has begun stays on its worker. This one is ready all the time.
                    let (begun, begins) = async_channel::bounded(1);
                    let (goes_on, gone_on) = async_channel::bounded(1);
                    let other = FIBERS.spawn(move || {
                        begun.try_send(()).unwrap();
                        wait(gone_on.recv()).unwrap();
                        OTHER_RAN.store(true, SeqCst);
                    });
                    wait(begins.recv()).unwrap();
                    goes_on.try_send(()).unwrap();
                    // SAFETY: the handler interrupts `raise`, and no code whose state it uses.
                    let raise = || unsafe { libc::raise(libc::SIGUSR1) };
                    if on_fiber {
                        raise()
                    } else {
                        downcall(raise)
                    };
                    other.join().unwrap();
                });
                until(|| WAITS.load(SeqCst));
                thread::sleep(Duration::from_millis(20));
                TOLD.store(true, SeqCst);
                BELL.waker.wake();
                fiber.join().unwrap();
                assert!(OTHER_RAN.load(SeqCst));
            }
            assert_eq!(HANDLED.load(SeqCst), 2 * (round + 1));
        }
    });
}

#[test]
fn interrupted_waits_go_on() {
    in_child("interrupted_waits_go_on", ONE_WORKER, || {
        // Without SA_RESTART, so system calls fail with EINTR.
        handle(libc::SIGUSR1, counts, 0);
        everywhere(|place| {
            let (sender, receiver) = async_channel::bounded(1);
            let (target, ends) = (this_thread(), std::sync::Arc::new(AtomicBool::new(false)));
            let its = ends.clone();
            let storm = thread::spawn(move || {
                while !its.load(SeqCst) {
                    send(target, libc::SIGUSR1);
                    thread::sleep(Duration::from_micros(100));
                }
            });
            let before = HANDLED.load(SeqCst);
            until(|| HANDLED.load(SeqCst) != before);
            let began = Instant::now();
            sleep(Duration::from_millis(20));
            assert!(began.elapsed() >= Duration::from_millis(20), "{place}");
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(10));
                sender.send_blocking(42).unwrap();
            });
            assert_eq!(wait(receiver.recv()), Ok(42), "{place}");
            ends.store(true, SeqCst);
            storm.join().unwrap();
            other.join().unwrap();
        });
    });
}

/* ---- SIGPIPE ---- */

/// Writes to a pipe without a reader, and returns the error's number.
fn write_to_nobody() -> Option<c_int> {
    let mut pipe = [0; 2];
    // SAFETY: the descriptors of `pipe` belong to this code.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        libc::close(pipe[0]);
        let error = (libc::write(pipe[1], c"x".as_ptr().cast(), 1) == -1).then(std::io::Error::last_os_error);
        libc::close(pipe[1]);
        error?.raw_os_error()
    }
}

/// Sets the default action of SIGPIPE, as in hosts not written in Rust.
fn die_of_sigpipe() {
    // SAFETY: the default action is no handler, so no code can be interrupted.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

fn sigpipe_is_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: `sigpending` writes the set before it is read.
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0 && libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

#[test]
fn sigpipe_ends_a_process_that_does_not_ask() {
    use std::os::unix::process::ExitStatusExt;
    if part().is_none() {
        let output = child("sigpipe_ends_a_process_that_does_not_ask", "run", &[]);
        assert_eq!(output.status.signal(), Some(libc::SIGPIPE));
        return;
    }
    die_of_sigpipe();
    FIBERS.spawn(write_to_nobody).join().unwrap();
}

#[test]
fn writing_to_nobody_is_an_error_without_sigpipe() {
    in_child("writing_to_nobody_is_an_error_without_sigpipe", &[], || {
        die_of_sigpipe();
        everywhere(|place| {
            for _ in 0..3 {
                let nested = || upcall::without_sigpipe(write_to_nobody);
                let error = upcall::without_sigpipe(|| (write_to_nobody(), nested(), write_to_nobody()));
                assert_eq!(error, (Some(libc::EPIPE), Some(libc::EPIPE), Some(libc::EPIPE)), "{place}");
                assert_eq!(blocked(), [], "{place}");
            }
            let panics = || {
                upcall::without_sigpipe(|| {
                    write_to_nobody();
                    std::panic::resume_unwind(Box::new("a payload"))
                })
            };
            let payload = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"a payload"), "{place}");
            assert_eq!(blocked(), [], "{place}");
        });
    });
}

#[test]
fn without_sigpipe_leaves_what_the_host_has_blocked_or_pending() {
    in_child("without_sigpipe_leaves_what_the_host_has_blocked_or_pending", &[], || {
        die_of_sigpipe();
        change_mask(libc::SIG_BLOCK, &[libc::SIGPIPE]);
        upcall::without_sigpipe(write_to_nobody);
        assert!(!sigpipe_is_pending() && blocked() == [libc::SIGPIPE], "its own is taken away");
        write_to_nobody();
        assert!(sigpipe_is_pending());
        upcall::without_sigpipe(write_to_nobody);
        assert!(sigpipe_is_pending() && blocked() == [libc::SIGPIPE], "the host's stays");
    });
}

#[test]
fn a_wait_without_sigpipe_blocks_its_thread_and_others_are_as_ever() {
    in_child("a_wait_without_sigpipe_blocks_its_thread_and_others_are_as_ever", ONE_WORKER, || {
        die_of_sigpipe();
        // On a busy machine, the worker may seem stuck, and the other fiber moves to another one.
        let is_on_one_worker = || {
            let (worker, (sender, receiver)) = (this_thread(), async_channel::bounded(1));
            let other = FIBERS.spawn(move || {
                let other = this_thread();
                assert_eq!(blocked(), []);
                assert_eq!(upcall::without_sigpipe(write_to_nobody), Some(libc::EPIPE));
                assert_eq!(blocked(), []);
                yield_now();
                sender.try_send(()).unwrap();
                other
            });
            upcall::without_sigpipe(|| {
                write_to_nobody();
                yield_now();
                wait(receiver.recv()).unwrap();
                assert_eq!(blocked(), [libc::SIGPIPE]);
                assert_eq!(write_to_nobody(), Some(libc::EPIPE));
            });
            assert_eq!(blocked(), []);
            other.join().unwrap() == worker
        };
        let is_ever = move || (0..20).any(|_| is_on_one_worker());
        assert!(FIBERS.spawn(is_ever).join().unwrap());
        // No SIGPIPE is pending anywhere. A pending one would end the process now.
        everywhere(|place| assert_eq!(blocked(), [], "{place}"));
    });
}
