//! The limit of running tasks: an error, or a wait. The settings are the process's, so this is a
//! process of its own.

use std::future::pending;
use std::io;
use std::thread;
use std::time::Duration;

use upcall::{Completion, StartError, Task, TaskBuilder, TaskStatus, start, timer};

#[test]
fn starts_beyond_the_limit_fail_or_wait() {
    upcall::config().running_tasks(3).install().unwrap();
    let never = || start(pending::<Result<(), io::Error>>(), Completion::none());
    let tasks: Vec<_> = (0..3).map(|_| never().unwrap()).collect();
    assert_eq!(Task::running(), 3);
    let snapshot = upcall::snapshot();
    assert_eq!(snapshot.running_tasks, 3);
    assert!(snapshot.to_string().contains(", 3 running tasks;"), "{snapshot}");
    let completes = Completion::call(|_, _| panic!("it was not started"));
    let refused = start(async { Ok::<_, io::Error>(()) }, completes).unwrap_err();
    assert!(matches!(refused, StartError::TooMany { limit: 3 }));
    assert!(refused.to_string().contains("Config::running_tasks"), "{refused}");

    // Eight threads wait for a place, and each task that ends gives one.
    let waiting: Vec<_> = (0..8)
        .map(|number| {
            thread::spawn(move || {
                let soon = async move {
                    timer(Duration::from_millis(3)).await;
                    Ok::<_, io::Error>(number)
                };
                let task = TaskBuilder::new().wait_for_place().start(soon, Completion::none()).unwrap();
                assert_eq!(Task::wait(task, None).unwrap(), TaskStatus::Done);
                assert_eq!(Task::take::<i32>(task).unwrap(), number);
                Task::free(task, false).unwrap();
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(20));
    assert!(waiting.iter().all(|thread| !thread.is_finished()));
    Task::free(tasks[0], true).unwrap();
    waiting.into_iter().for_each(|thread| thread.join().unwrap());
    Task::free(tasks[1], true).unwrap();
    Task::free(tasks[2], true).unwrap();
    while Task::running() != 0 {
        thread::yield_now();
    }
    Task::free(never().unwrap(), true).unwrap();
}
