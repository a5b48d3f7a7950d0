//! Tasks: each end, exactly one completion, and its thread.

mod common;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::future::pending;
use std::io;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use common::FIBERS;
use upcall::{
    Completion, Handle, HandleError, PartSender, Task, TaskBuilder, TaskError, TaskStatus, start, timer,
};

const MOMENT: Duration = Duration::from_millis(2);

type Never = Result<(), io::Error>;

/// A completion that sends what it gets, and its thread.
fn sending() -> (Completion, Receiver<(usize, TaskStatus, ThreadId)>) {
    let (sender, receiver) = channel();
    let send = move |task: *mut Task, status| {
        sender.send((task.addr(), status, thread::current().id())).unwrap();
    };
    (Completion::call(send), receiver)
}

/// The executors of tasks. The first one is tokio, if upcall has this feature.
fn executors() -> [TaskBuilder; 2] {
    [TaskBuilder::new(), TaskBuilder::new().on_workers()]
}

/// An operation that is ready after a moment.
async fn soon<T>(value: T) -> Result<T, io::Error> {
    timer(MOMENT).await;
    Ok(value)
}

#[test]
fn an_operation_that_is_ready_completes_inside_start() {
    let (done, ended) = sending();
    let task = start(async { Ok::<_, io::Error>(7) }, done).unwrap();
    assert_eq!(ended.try_recv().unwrap(), (task.addr(), TaskStatus::Done, thread::current().id()));
    assert_eq!(Task::status(task).unwrap(), TaskStatus::Done);
    assert_eq!(Task::take::<i32>(task).unwrap(), 7);
    assert!(matches!(Task::take::<i32>(task), Err(TaskError::Taken)));
    Task::free(task, false).unwrap();
    assert!(ended.recv().is_err(), "the completion was called once, and dropped");
}

#[test]
fn a_later_start_polls_and_completes_elsewhere() {
    let (done, ended) = sending();
    let here = thread::current().id();
    let polled = async move { Ok::<_, io::Error>(thread::current().id() == here) };
    let task = TaskBuilder::new().later().start(polled, done).unwrap();
    let (_, status, by) = ended.recv().unwrap();
    assert_eq!(status, TaskStatus::Done);
    assert_ne!(by, here);
    assert!(!Task::take::<bool>(task).unwrap());
    Task::free(task, false).unwrap();
}

#[test]
fn every_end_has_its_status_and_message() {
    let cases: [(&str, TaskStatus, &str); 5] = [
        ("value", TaskStatus::Done, ""),
        ("error", TaskStatus::Failed, "no such name"),
        ("panic", TaskStatus::Panicked, "the task panicked: out of names"),
        ("cancel", TaskStatus::Cancelled, "the task was cancelled"),
        ("deadline", TaskStatus::DeadlineExceeded, "the task did not end before its deadline"),
    ];
    for (case, builder) in cases.iter().flat_map(|case| executors().map(|builder| (case, builder))) {
        let (how, expected, message) = *case;
        let (done, ended) = sending();
        let operation = async move {
            timer(MOMENT).await;
            match how {
                "value" => Ok(()),
                "error" => Err(io::Error::other("no such name")),
                "panic" => panic!("out of names"),
                _ => pending().await,
            }
        };
        let builder = if how == "deadline" { builder.deadline(2 * MOMENT) } else { builder };
        let task = builder.start(operation, done).unwrap();
        assert_eq!(Task::status(task).unwrap(), TaskStatus::Running);
        assert!(matches!(Task::take::<()>(task), Err(TaskError::NotDone)));
        if how == "cancel" {
            Task::cancel(task).unwrap();
        }
        assert_eq!(Task::wait(task, None).unwrap(), expected, "{how}");
        let (of, status, _) = ended.recv().unwrap();
        assert_eq!((of, status), (task.addr(), expected), "{how}");
        let told = Task::error(task).unwrap().map_or(String::new(), |error| error.to_string());
        assert_eq!(told, message, "{how}");
        // A cancellation after the end changes nothing.
        Task::cancel(task).unwrap();
        assert_eq!(Task::status(task).unwrap(), expected);
        Task::free(task, true).unwrap();
        assert!(ended.recv().is_err(), "{how}: the completion was called once");
    }
}

#[test]
fn the_future_is_dropped_before_the_completion() {
    struct Sends(std::sync::mpsc::Sender<&'static str>);
    impl Drop for Sends {
        fn drop(&mut self) {
            thread::sleep(MOMENT);
            self.0.send("dropped").unwrap();
        }
    }
    for cancels in [false, true] {
        let (sender, receiver) = channel();
        let held = Sends(sender.clone());
        let operation = async move {
            let _held = held;
            if cancels { pending().await } else { soon(()).await }
        };
        let done = Completion::call(move |_, _| sender.send("completed").unwrap());
        let task = start(operation, done).unwrap();
        Task::free(task, cancels).unwrap();
        let order: Vec<_> = receiver.iter().collect();
        assert_eq!(order, ["dropped", "completed"]);
    }
}

#[test]
fn what_is_no_task_is_an_error() {
    let stale = start(async { Ok::<_, io::Error>(()) }, Completion::none()).unwrap();
    Task::free(stale, false).unwrap();
    assert_eq!(Task::free(stale, false), Err(HandleError::Freed));
    assert_eq!(Task::cancel(stale), Err(HandleError::Freed));
    assert_eq!(Task::wait(stale, None), Err(HandleError::Freed));
    assert_eq!(Task::status(null_mut()), Err(HandleError::Null));
    let other: *mut Task = Handle::into_raw(String::new()).cast();
    assert!(matches!(Task::status(other), Err(HandleError::WrongType { .. })));
    assert!(matches!(Task::take::<String>(other), Err(TaskError::Handle(HandleError::WrongType { .. }))));
    let task = start(async { Ok::<_, io::Error>(7u32) }, Completion::none()).unwrap();
    assert!(matches!(Task::take::<u64>(task), Err(TaskError::WrongType { .. })));
    assert!(matches!(Task::next_part::<u64>(task, None), Err(TaskError::NoParts)));
    assert_eq!(Task::take::<u32>(task).unwrap(), 7, "a take of the wrong type takes nothing");
    Task::free(task, false).unwrap();
}

#[test]
fn a_completion_may_panic_wait_start_and_free() {
    let (sender, receiver) = channel();
    let first = Completion::call(move |task, _| {
        // Its own handle: waits for itself, takes, frees.
        assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Done);
        assert_eq!(Task::take::<&str>(task).unwrap(), "first");
        Task::free(task, true).unwrap();
        upcall::wait(timer(MOMENT));
        let done = Completion::call(move |_, status| {
            sender.send(status).unwrap();
            panic!("a completion's panic ends in it");
        });
        let second = start(soon("second"), done).unwrap();
        Task::free(second, false).unwrap();
        panic!("a completion's panic ends in it");
    });
    start(soon("first"), first).unwrap();
    assert_eq!(receiver.recv().unwrap(), TaskStatus::Done);
    // The workers live.
    let task = start(soon(3), Completion::none()).unwrap();
    assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Done);
    Task::free(task, false).unwrap();
}

/// An operation that wakes itself at once goes on, whatever a completion blocks meanwhile.
#[test]
fn a_completion_may_block_until_a_later_task_has_ended() {
    const LONG: Duration = Duration::from_secs(20);
    for round in 0..40 {
        let builder = executors()[round % 2].clone();
        let (begins, begun) = channel();
        let (ends, ended) = channel::<()>();
        let (tells, told) = channel();
        let blocks = Completion::call(move |_, _| {
            begins.send(()).unwrap();
            tells.send(ended.recv_timeout(LONG)).unwrap();
        });
        let unblocks = Completion::call(move |_, _| ends.send(()).unwrap());
        let yields = || async {
            futures_lite::future::yield_now().await;
            Ok::<_, io::Error>(())
        };
        let first = builder.clone().start(yields(), blocks).unwrap();
        begun.recv().unwrap();
        let second = builder.start(yields(), unblocks).unwrap();
        assert_eq!(told.recv(), Ok(Ok(())), "round {round}");
        Task::free(first, false).unwrap();
        Task::free(second, false).unwrap();
    }
}

#[test]
fn c_gets_its_data_the_task_and_the_status() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C-unwind" fn done(data: *mut c_void, task: *mut Task, status: c_int) {
        upcall::enter(|| {
            assert_eq!(data.addr(), 77);
            assert_eq!(status, TaskStatus::Cancelled as c_int);
            CALLS.fetch_add(1, SeqCst);
            // A panic of an upcall inside the completion ends in the completion.
            Task::take::<()>(task).unwrap();
        })
        .unwrap_or(());
    }
    // SAFETY: any thread may call `done`, at any time.
    let completion = unsafe { Completion::c(Some(done), std::ptr::without_provenance_mut(77)) };
    let task = start(pending::<Never>(), completion).unwrap();
    Task::cancel(task).unwrap();
    assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Cancelled);
    let deadline = Instant::now() + Duration::from_secs(10);
    while CALLS.load(SeqCst) == 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(CALLS.load(SeqCst), 1);
    Task::free(task, false).unwrap();
    // SAFETY: no function is called.
    let nothing = unsafe { Completion::c(None, null_mut()) };
    Task::free(start(soon(()), nothing).unwrap(), true).unwrap();
}

#[test]
fn a_runtime_of_the_host_makes_the_call() {
    let runtime = FIBERS.local_runtime().unwrap();
    let (done, ended) = sending();
    // Also an operation that is ready at once completes in `run_ready`.
    let task = start(async { Ok::<_, io::Error>(()) }, done.on(&runtime.handle())).unwrap();
    assert!(ended.try_recv().is_err());
    runtime.run_ready(usize::MAX);
    assert_eq!(ended.try_recv().unwrap(), (task.addr(), TaskStatus::Done, thread::current().id()));
    Task::free(task, false).unwrap();

    // It may wait there: the fiber waits.
    let waited = Rc::new(Cell::new(0));
    let (sender, receiver) = channel();
    let done = Completion::call(move |_, _| {
        upcall::sleep(MOMENT);
        sender.send(thread::current().id()).unwrap();
    });
    let task = start(soon(()), done.on(&runtime.handle())).unwrap();
    let by = loop {
        runtime.run_ready(usize::MAX);
        match receiver.try_recv() {
            Ok(by) => break by,
            Err(_) => waited.set(waited.get() + 1),
        }
    };
    assert_eq!(by, thread::current().id());
    Task::free(task, false).unwrap();

    // A call still to be made is made at the runtime's end, and a later one by the ending thread.
    let (done, ended) = sending();
    let (late, late_ended) = sending();
    let task = start(async { Ok::<_, io::Error>(()) }, done.on(&runtime.handle())).unwrap();
    let late_task = start(pending::<Never>(), late.on(&runtime.handle())).unwrap();
    drop(runtime);
    assert_eq!(ended.try_recv().unwrap().1, TaskStatus::Done);
    Task::cancel(late_task).unwrap();
    assert_eq!(late_ended.recv().unwrap().1, TaskStatus::Cancelled);
    Task::free(task, false).unwrap();
    Task::free(late_task, false).unwrap();
}

#[test]
fn a_local_operation_stays_on_its_thread() {
    let runtime = FIBERS.local_runtime().unwrap();
    let here = thread::current().id();
    let counter = Rc::new(Cell::new(0));
    let counts = counter.clone();
    let operation = async move {
        for _ in 0..3 {
            counts.set(counts.get() + 1);
            timer(MOMENT).await;
            assert_eq!(thread::current().id(), here);
        }
        Ok::<_, io::Error>(counts.get())
    };
    let (done, ended) = sending();
    let task = TaskBuilder::new().start_local(operation, done).unwrap();
    // A wait of this thread runs it.
    assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Done);
    assert_eq!(ended.recv().unwrap().2, here);
    assert_eq!((Task::take::<i32>(task).unwrap(), counter.get()), (3, 3));
    Task::free(task, false).unwrap();

    // Another thread cancels, and this one drops.
    struct Drops(ThreadId, Arc<Mutex<Option<bool>>>);
    impl Drop for Drops {
        fn drop(&mut self) {
            *self.1.lock().unwrap() = Some(thread::current().id() == self.0);
        }
    }
    let dropped_here = Arc::new(Mutex::new(None));
    let (drops, rc) = (Drops(here, dropped_here.clone()), Rc::new(()));
    let operation = async move {
        let _held = (drops, rc);
        pending::<Never>().await
    };
    let task = TaskBuilder::new().start_local(operation, Completion::none()).unwrap();
    let address = task.addr();
    thread::spawn(move || Task::cancel(std::ptr::without_provenance_mut(address)).unwrap()).join().unwrap();
    assert_eq!(*dropped_here.lock().unwrap(), None);
    assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Cancelled);
    assert_eq!(*dropped_here.lock().unwrap(), Some(true));
    Task::free(task, false).unwrap();

    // The end of the runtime is the end of its operations, woken or not.
    let (done, ended) = sending();
    let task = TaskBuilder::new().start_local(pending::<Never>(), done).unwrap();
    drop(runtime);
    assert_eq!(ended.try_recv().unwrap().1, TaskStatus::Lost);
    assert_eq!(Task::status(task).unwrap(), TaskStatus::Lost);
    Task::free(task, false).unwrap();
    let refused = TaskBuilder::new().start_local(pending::<Never>(), Completion::none());
    assert!(matches!(refused, Err(upcall::StartError::NoRuntime)));

    // The next runtime of the thread runs operations again.
    let runtime = FIBERS.local_runtime().unwrap();
    let task = TaskBuilder::new().start_local(soon(5), Completion::none()).unwrap();
    assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Done);
    Task::free(task, false).unwrap();
    drop(runtime);
}

#[test]
fn waits_have_limits_and_suspend_fibers() {
    let task = start(pending::<Never>(), Completion::none()).unwrap();
    let before = Instant::now();
    assert_eq!(Task::wait(task, Some(Duration::ZERO)).unwrap(), TaskStatus::Running);
    assert_eq!(Task::wait(task, Some(MOMENT)).unwrap(), TaskStatus::Running);
    assert!(before.elapsed() >= MOMENT);
    let address = task.addr();
    let runtime = FIBERS.local_runtime().unwrap();
    let fibers: Vec<_> = (0..10)
        .map(|_| runtime.spawn_local(move || Task::wait(std::ptr::without_provenance_mut(address), None)))
        .collect();
    // All of them wait, and the thread does not.
    runtime.run_ready(usize::MAX);
    assert!(fibers.iter().all(|fiber| !fiber.is_finished()));
    Task::cancel(task).unwrap();
    for fiber in fibers {
        assert_eq!(fiber.join().unwrap().unwrap(), TaskStatus::Cancelled);
    }
    Task::free(task, false).unwrap();
}

#[test]
fn a_wait_goes_on_when_its_task_is_freed() {
    let task = start(pending::<Never>(), Completion::none()).unwrap();
    let address = task.addr();
    let waiter = thread::spawn(move || Task::wait(std::ptr::without_provenance_mut(address), None));
    thread::sleep(10 * MOMENT);
    Task::free(task, true).unwrap();
    // It waits for the end; or it was late, and found the handle freed.
    let waited = waiter.join().unwrap();
    assert!(matches!(waited, Ok(TaskStatus::Cancelled) | Err(HandleError::Freed)), "{waited:?}");
}

#[test]
fn parts_come_in_order_through_a_bounded_queue() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counts = sent.clone();
    let rows = move |mut sender: PartSender<usize>| async move {
        for row in 0..100 {
            sender.send(row).await?;
            counts.fetch_add(1, SeqCst);
        }
        Err::<(), Box<dyn std::error::Error + Send + Sync>>("no more rows".into())
    };
    let (done, ended) = sending();
    let task = TaskBuilder::new().start_parts(4, rows, done).unwrap();
    thread::sleep(5 * MOMENT);
    assert_eq!(sent.load(SeqCst), 4, "the operation waits while the queue is full");
    assert!(matches!(Task::next_part::<u8>(task, None), Err(TaskError::WrongType { .. })));
    for row in 0..100 {
        assert_eq!(Task::next_part::<usize>(task, None).unwrap(), Some(row));
        assert!(sent.load(SeqCst) <= row + 6);
    }
    let end = Task::next_part::<usize>(task, None).unwrap_err();
    assert_eq!(end.to_string(), "no more rows");
    assert_eq!(ended.recv().unwrap().1, TaskStatus::Failed);
    Task::free(task, false).unwrap();

    // Freed with parts in it, the operation goes on, and hears of it.
    let (sender, receiver) = channel();
    let rows = move |mut parts: PartSender<String>| async move {
        while parts.send("row".to_owned()).await.is_ok() {}
        sender.send("closed").unwrap();
        Ok::<_, io::Error>(())
    };
    let task = TaskBuilder::new().start_parts(2, rows, Completion::none()).unwrap();
    assert!(matches!(Task::next_part::<String>(task, Some(MOMENT)), Ok(Some(_))));
    Task::free(task, false).unwrap();
    assert_eq!(receiver.recv().unwrap(), "closed");
}

#[test]
fn a_wait_for_a_part_has_a_limit() {
    let rows = |_sender: PartSender<u8>| pending::<Never>();
    let task = TaskBuilder::new().start_parts(1, rows, Completion::none()).unwrap();
    assert!(matches!(Task::next_part::<u8>(task, Some(MOMENT)), Err(TaskError::NotDone)));
    Task::cancel(task).unwrap();
    assert!(matches!(Task::next_part::<u8>(task, None), Err(TaskError::Cancelled)));
    Task::free(task, false).unwrap();
}

/// Exactly one completion and one drop for each task, whatever threads do to it at the same time.
#[test]
fn one_completion_in_every_race() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let rounds: usize = std::env::var("TASK_RACES").map_or(20_000, |rounds| rounds.parse().unwrap());
    let (completed, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let shared = Arc::new(Mutex::new(Vec::new()));
    let other = {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut random = 0x9e37_79b9_7f4a_7c15u64;
            loop {
                let next: Option<usize> = {
                    let mut tasks: std::sync::MutexGuard<'_, Vec<usize>> = shared.lock().unwrap();
                    tasks.pop()
                };
                let Some(address) = next else {
                    thread::yield_now();
                    continue;
                };
                if address == 0 {
                    break;
                }
                let task = std::ptr::without_provenance_mut(address);
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let _ = match random % 5 {
                    0 => Task::cancel(task).map(|()| TaskStatus::Running),
                    1 => Task::wait(task, Some(Duration::from_micros(random >> 32 & 63))),
                    2 => Task::take::<usize>(task)
                        .map_or_else(|_| Task::status(task), |_| Ok(TaskStatus::Done)),
                    3 => Task::status(task),
                    _ => Ok(TaskStatus::Running),
                };
                let _ = Task::free(task, random & 64 != 0);
            }
        })
    };
    let mut runtime = None;
    for round in 0..rounds {
        let (count, held) = (completed.clone(), Counts(dropped.clone()));
        let done = Completion::call(move |task, _| {
            count.fetch_add(1, SeqCst);
            if round % 5 == 0 {
                let _ = Task::free(task, true);
            }
        });
        let operation = async move {
            let _held = held;
            match round % 3 {
                0 => {}
                1 => futures_lite::future::yield_now().await,
                _ => timer(Duration::from_micros((round % 50) as u64)).await,
            }
            if round % 7 == 0 { Err(io::Error::other("fails")) } else { Ok(round) }
        };
        let mut builder = executors()[round % 2].clone();
        if round % 4 < 2 {
            builder = builder.deadline(Duration::from_micros((round % 40) as u64));
        }
        if round % 13 == 0 {
            builder = builder.later();
        }
        // The executor's own end is among the events.
        if round % 1000 == 0 {
            drop(runtime.take());
            runtime = Some(FIBERS.local_runtime().unwrap());
        } else if round % 50 == 0 {
            runtime.as_ref().unwrap().run_ready(usize::MAX);
        }
        let task = if round % 17 == 3 {
            builder.start_local(operation, done).unwrap()
        } else {
            builder.start(operation, done).unwrap()
        };
        shared.lock().unwrap().push(task.addr());
        if round % 2 == 0 {
            let _ = Task::cancel(task);
        }
        if round % 3 != 0 {
            let _ = Task::free(task, round % 11 == 0);
        }
    }
    drop(runtime);
    shared.lock().unwrap().insert(0, 0);
    other.join().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while completed.load(SeqCst) != rounds && Instant::now() < deadline {
        thread::sleep(MOMENT);
    }
    assert_eq!((completed.load(SeqCst), dropped.load(SeqCst)), (rounds, rounds));
}
