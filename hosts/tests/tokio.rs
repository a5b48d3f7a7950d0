//! tokio as the host: its tasks call C, C calls Rust, and Rust waits for something served by tokio.

#[path = "../../crates/upcall/tests/common/mod.rs"]
mod common;

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use common::{Comparator, Log, child, message, part, stderr_of_success, time_limit};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, consume_budget, spawn_blocking, spawn_local};
use tokio::time::{sleep, timeout};
use upcall::{downcall, downcall_on_fiber, wait};

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

const TICK: Duration = Duration::from_millis(1);

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// A runtime of the process for waits outside all runtimes.
///
/// The test runs again in a child process; only there the result is `Some`.
fn configured(test: &'static str) -> Option<&'static Runtime> {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| multi_thread(1));
    if part().is_none() {
        stderr_of_success(&child(test, "configured", &[]));
        return None;
    }
    upcall::config().tokio(|| RUNTIME.handle().clone()).install().unwrap();
    Some(&RUNTIME)
}

/// A service with a task that answers.
#[derive(Clone)]
struct Service(mpsc::Sender<oneshot::Sender<u32>>);

impl Service {
    /// Makes the service, and the future of its task.
    fn new() -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut receiver) = mpsc::channel::<oneshot::Sender<u32>>(1);
        let serves = async move {
            while let Some(answer) = receiver.recv().await {
                tokio::task::yield_now().await;
                let _ = answer.send(7);
            }
        };
        (Self(sender), serves)
    }

    /// Asks the task and waits for the answer, from C called by Rust or from anywhere.
    fn ask(&self) {
        let (sender, receiver) = oneshot::channel();
        wait(self.0.send(sender)).unwrap();
        assert_eq!(wait(receiver).unwrap(), 7);
    }
}

/// A way to call C.
type Call = fn(&mut dyn FnMut());
const DIRECTLY: Call = |f| downcall(f);
const ON_FIBER: Call = |f| downcall_on_fiber(f);

/// Sorts in C, with a comparator that calls `waits`.
fn sort(call: Call, waits: &dyn Fn()) {
    let mut numbers = [3, 1, 4, 2];
    let compare = |a: i32, b: i32| {
        waits();
        a.cmp(&b)
    };
    call(&mut || Comparator::new(&compare).sort(&mut numbers));
    assert_eq!(numbers, [1, 2, 3, 4]);
}

fn wait_for_timer() {
    let start = Instant::now();
    wait(async { sleep(TICK).await });
    assert!(start.elapsed() >= TICK);
}

/// Waits inside C for a timer, for another task, and for a C function with such waits.
fn sort_in_all_ways(call: Call, service: &Service) {
    sort(call, &wait_for_timer);
    sort(call, &|| service.ask());
    sort(call, &|| {
        sort(call, &|| {
            wait_for_timer();
            service.ask();
        });
    });
}

#[test]
fn in_a_task_of_a_multi_thread_runtime() {
    let _limit = time_limit("in_a_task_of_a_multi_thread_runtime");
    for workers in [1, 2] {
        let runtime = multi_thread(workers);
        let (service, serves) = Service::new();
        runtime.spawn(serves);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let service = service.clone();
                runtime.spawn(async move { sort_in_all_ways(DIRECTLY, &service) })
            })
            .collect();
        tasks.into_iter().for_each(|task| runtime.block_on(task).unwrap());
    }
}

#[test]
fn elsewhere_in_a_multi_thread_runtime() {
    let _limit = time_limit("elsewhere_in_a_multi_thread_runtime");
    let runtime = multi_thread(1);
    let (service, serves) = Service::new();
    runtime.spawn(serves);
    runtime.block_on(async { sort_in_all_ways(DIRECTLY, &service) });
    let own = service.clone();
    runtime.block_on(async { spawn_blocking(move || sort_in_all_ways(DIRECTLY, &own)).await.unwrap() });
    LocalSet::new().block_on(&runtime, async { sort_in_all_ways(DIRECTLY, &service) });
    let own = service.clone();
    LocalSet::new().block_on(&runtime, async {
        spawn_local(async move { sort_in_all_ways(DIRECTLY, &own) }).await.unwrap();
    });
    let _entered = runtime.enter();
    sort_in_all_ways(DIRECTLY, &service);
}

#[test]
fn directly_on_a_current_thread_runtime_with_another_configured() {
    const NAME: &str = "directly_on_a_current_thread_runtime_with_another_configured";
    let Some(configured) = configured(NAME) else { return };
    let _limit = time_limit(NAME);
    let (service, serves) = Service::new();
    configured.spawn(serves);
    current_thread().block_on(async { sort_in_all_ways(DIRECTLY, &service) });
    LocalSet::new().block_on(&current_thread(), async {
        spawn_local(async move { sort_in_all_ways(DIRECTLY, &service) }).await.unwrap();
    });
}

#[test]
fn in_no_runtime_with_one_configured() {
    const NAME: &str = "in_no_runtime_with_one_configured";
    let Some(configured) = configured(NAME) else { return };
    let _limit = time_limit(NAME);
    let (service, serves) = Service::new();
    configured.spawn(serves);
    sort_in_all_ways(DIRECTLY, &service);
    let (by_thread, by_fiber) = (service.clone(), service.clone());
    thread::spawn(move || sort_in_all_ways(DIRECTLY, &by_thread)).join().unwrap();
    FIBERS.spawn(move || sort_in_all_ways(ON_FIBER, &by_fiber)).join().unwrap();
    FIBERS.spawn(move || sort_in_all_ways(DIRECTLY, &service)).join().unwrap();
}

#[test]
fn in_no_runtime_there_is_one() {
    const NAME: &str = "in_no_runtime_there_is_one";
    if part().is_none() {
        return drop(stderr_of_success(&child(NAME, "run", &[])));
    }
    let _limit = time_limit(NAME);
    let threads = || {
        let names =
            std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path().join("comm"));
        names
            .filter(|comm| std::fs::read_to_string(comm).is_ok_and(|name| name.starts_with("tokio-upcall")))
            .count()
    };
    // upcall's own waits need no tokio runtime.
    upcall::sleep(TICK);
    FIBERS.spawn(|| upcall::sleep(TICK)).join().unwrap();
    assert_eq!(threads(), 0);
    wait_for_timer();
    assert_ne!(threads(), 0);
    // Many threads at once get the same runtime.
    let by_threads: Vec<_> = (0..8).map(|_| thread::spawn(wait_for_timer)).collect();
    by_threads.into_iter().for_each(|thread| thread.join().unwrap());
    FIBERS.spawn(|| sort(ON_FIBER, &wait_for_timer)).join().unwrap();
    FIBERS.spawn(|| sort(DIRECTLY, &wait_for_timer)).join().unwrap();
    wait(async { tokio::spawn(async { sleep(TICK).await }).await.unwrap() });
    // The runtime is also there during a poll.
    wait(async { sort(DIRECTLY, &wait_for_timer) });
    // `wait` converts its argument into a future inside the runtime.
    struct Naps;
    impl std::future::IntoFuture for Naps {
        type Output = ();
        type IntoFuture = tokio::time::Sleep;
        fn into_future(self) -> tokio::time::Sleep {
            sleep(TICK)
        }
    }
    wait(Naps);
    // `shutdown` ends the runtime too. Afterwards, waits without types of tokio still work.
    upcall::shutdown(Duration::from_secs(10)).unwrap();
    assert_eq!(threads(), 0);
    assert_eq!(wait(async { 7 }), 7);
    let panicked = upcall::enter(wait_for_timer).unwrap_err();
    assert!(panicked.message().contains("there is no reactor running"), "{panicked}");
}

#[test]
fn a_runtime_is_asked_for_at_any_time() {
    const NAME: &str = "a_runtime_is_asked_for_at_any_time";
    if part().is_none() {
        return drop(stderr_of_success(&child(NAME, "run", &[])));
    }
    let _limit = time_limit(NAME);
    static FIRST: LazyLock<Runtime> = LazyLock::new(|| multi_thread(1));
    static SECOND: LazyLock<Runtime> = LazyLock::new(|| {
        // A wait in here finds no runtime, and does not ask for one again.
        wait(async {});
        multi_thread(1)
    });
    let current = || wait(async { Handle::current().id() });
    let own = current();
    upcall::tokio_runtime(|| FIRST.handle().clone());
    assert_eq!(current(), FIRST.handle().id());
    upcall::tokio_runtime(|| SECOND.handle().clone());
    assert_eq!(current(), SECOND.handle().id());
    assert_eq!(FIBERS.spawn(current).join().unwrap(), SECOND.handle().id());
    assert!(own != FIRST.handle().id() && own != SECOND.handle().id());
}

#[test]
fn as_a_fiber_on_every_kind_of_runtime() {
    let _limit = time_limit("as_a_fiber_on_every_kind_of_runtime");
    for runtime in [current_thread(), multi_thread(1)] {
        // The service runs on the same thread as the fibers, or on the runtime's worker.
        let (service, serves) = Service::new();
        let own = service.clone();
        runtime.spawn(serves);
        runtime.block_on(FIBERS.fiber(move || sort_in_all_ways(ON_FIBER, &own)));
        LocalSet::new().block_on(&runtime, async {
            let fiber = || {
                let service = service.clone();
                spawn_local(FIBERS.fiber(move || sort_in_all_ways(ON_FIBER, &service)))
            };
            let fibers: Vec<_> = (0..4).map(|_| fiber()).collect();
            for fiber in fibers {
                fiber.await.unwrap();
            }
        });
    }
}

#[test]
fn what_blocks_the_only_thread_for_long_is_told() {
    const NAME: &str = "what_blocks_the_only_thread_for_long_is_told";
    if part().is_none() {
        let told = stderr_of_success(&child(NAME, "block", &[("UPCALL_WAIT_WARNING", "30")]));
        assert_eq!(
            told.matches("has blocked the thread of a current-thread tokio runtime for 30ms").count(),
            1,
            "{told}"
        );
        assert!(told.contains(&format!("upcall: the wait at {}:", file!())), "{told}");
        for way in ["Fibers::fiber", "downcall_on_fiber", "multi-thread runtime", "upcall::tokio_runtime"] {
            assert!(told.contains(way), "{told}");
        }
        let told = stderr_of_success(&child(NAME, "block", &[("UPCALL_WAIT_WARNING", "0")]));
        assert!(!told.contains("has blocked"), "{told}");
        return;
    }
    let _limit = time_limit(NAME);
    current_thread().block_on(async {
        let (sender, by_thread) = oneshot::channel();
        let (by_task, never) = oneshot::channel::<()>();
        tokio::spawn(async move { by_task.send(()) });
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(150));
            sender.send(()).unwrap();
        });
        // The waiting thread serves the timer, made outside the wait, and the task. Only the other
        // thread can end this wait.
        let timer = sleep(TICK);
        let ended_by = wait(async {
            tokio::select! {
                _ = timer => "the timer",
                _ = never => "the task",
                _ = by_thread => "the thread",
            }
        });
        assert_eq!(ended_by, "the thread");
    });
}

#[test]
fn a_budget_used_up_is_no_livelock() {
    const MESSAGES: u32 = 1000;
    let _limit = time_limit("a_budget_used_up_is_no_livelock");
    let receive = || {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        (0..2 * MESSAGES).for_each(|n| sender.send(n).unwrap());
        move || {
            (0..MESSAGES).for_each(|n| assert_eq!(wait(receiver.recv()), Some(n)));
            wait(async { while receiver.recv().await != Some(2 * MESSAGES - 1) {} });
        }
    };
    let mut in_task = receive();
    let runtime = multi_thread(1);
    runtime.block_on(runtime.spawn(async move { in_task() })).unwrap();
    let mut used_up = receive();
    runtime.block_on(async {
        (0..127).for_each(|_| assert!(common::poll(&mut Box::pin(consume_budget())).is_ready()));
        used_up();
    });
    let mut on_only_thread = receive();
    current_thread().block_on(async { on_only_thread() });
    current_thread().block_on(FIBERS.fiber(receive()));
    LocalSet::new()
        .block_on(&current_thread(), async { spawn_local(FIBERS.fiber(receive())).await.unwrap() });
}

#[test]
fn fifty_sorts_overlap_on_one_thread() {
    let _limit = time_limit("fifty_sorts_overlap_on_one_thread");
    const NAP: Duration = Duration::from_millis(5);
    fn sort_slowly() {
        let mut numbers: [i32; 16] = std::array::from_fn(|n| (n as i32 * 7) % 16);
        let compare = |a: i32, b: i32| {
            wait(async { sleep(NAP).await });
            a.cmp(&b)
        };
        downcall_on_fiber(|| Comparator::new(&compare).sort(&mut numbers));
        assert!(numbers.is_sorted());
    }
    let sort_at_once = |sorts: usize| {
        let start = Instant::now();
        LocalSet::new().block_on(&current_thread(), async {
            let sorts: Vec<_> = (0..sorts).map(|_| spawn_local(FIBERS.fiber(sort_slowly))).collect();
            for sort in sorts {
                sort.await.unwrap();
            }
        });
        start.elapsed()
    };
    let one = sort_at_once(1);
    assert!(one > 30 * NAP, "C compares more often than that");
    let fifty = sort_at_once(50);
    assert!(fifty < 5 * one, "fifty took {fifty:?}, one {one:?}");
}

#[test]
fn a_timeout_ends_a_sort_in_the_middle() {
    let _limit = time_limit("a_timeout_ends_a_sort_in_the_middle");
    let log = Log::default();
    let inner = log.clone();
    let others = Rc::new(Cell::new(0));
    current_thread().block_on(async {
        let ended = timeout(
            20 * TICK,
            FIBERS.fiber(move || {
                let _outside = inner.at_drop("outside");
                let calls = Cell::new(0);
                let compare = |a: i32, b: i32| {
                    calls.set(calls.get() + 1);
                    if calls.get() == 4 {
                        let _said = inner.at_drop("in the comparator");
                        wait(async { sleep(Duration::from_secs(3600)).await });
                    }
                    a.cmp(&b)
                };
                let comparator = Comparator::new(&compare);
                let mut numbers = [3, 1, 4, 1, 5, 9, 2, 6];
                downcall_on_fiber(|| {
                    comparator.sort(&mut numbers);
                    assert_eq!((calls.get(), comparator.panics.get()), (4, 1));
                    assert!(comparator.refusals.get() > 0);
                    inner.add("C returned");
                });
                inner.add("went on");
            }),
        );
        assert!(ended.await.is_err());
        // The thread is in its state from before.
        let counts = others.clone();
        FIBERS.fiber(move || sort(ON_FIBER, &|| (wait_for_timer(), counts.set(counts.get() + 1)).1)).await;
    });
    assert_eq!(log.take(), ["in the comparator", "C returned", "outside"]);
    assert!(others.get() > 2);
}

/// The alternative without upcall, `block_on` in place of `wait`, panics.
#[test]
fn block_on_in_the_place_of_wait_panics() {
    for runtime in [current_thread(), multi_thread(1)] {
        let sorted = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async { sort(DIRECTLY, &|| Handle::current().block_on(sleep(TICK))) });
        }));
        let said = message(sorted.unwrap_err());
        assert!(said.starts_with("Cannot start a runtime from within a runtime"), "{said}");
    }
}
