//! Warnings about threads blocked for long. Each case runs in its own process.

mod common;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{FIBERS, child, part, stderr_of_success, time_limit};
use upcall::{enter, sleep, timer, wait};

const NAP: Duration = Duration::from_millis(400);

/// Runs `test` in a child process, and returns the child's stderr. In the child, returns `None`.
fn said(test: &str, milliseconds: &str) -> Option<String> {
    let run = || stderr_of_success(&child(test, "run", &[("UPCALL_WAIT_WARNING", milliseconds)]));
    part().is_none().then(run)
}

#[test]
fn a_blocked_wait_is_told_once_for_each_place() {
    const NAME: &str = "a_blocked_wait_is_told_once_for_each_place";
    if let Some(told) = said(NAME, "100") {
        assert_eq!(told.matches("has blocked its thread for 100ms").count(), 2, "{told}");
        assert!(told.contains(&format!("upcall: the wait at {}:", file!())), "{told}");
        assert!(told.contains("it waits for async_channel::Recv<"), "{told}");
        assert!(told.contains("UPCALL_WAIT_WARNING=0"), "{told}");
        assert!(!said(NAME, "0").unwrap().contains("has blocked"));
        return;
    }
    let _limit = time_limit(NAME);
    let (sender, receiver) = async_channel::bounded::<u8>(1);
    thread::spawn(move || {
        for _ in 0..3 {
            thread::sleep(NAP);
            sender.send_blocking(1).unwrap();
        }
    });
    for _ in 0..3 {
        wait(receiver.recv()).unwrap();
    }
    enter(|| wait(timer(NAP))).unwrap();
    // A suspended fiber blocks no thread, and this thread's own wait is short.
    for _ in 0..20 {
        FIBERS.spawn(|| sleep(Duration::from_millis(10))).join().unwrap();
    }
}

#[test]
fn fibers_behind_a_blocked_one_are_told() {
    const NAME: &str = "fibers_behind_a_blocked_one_are_told";
    if let Some(told) = said(NAME, "100") {
        let told: Vec<_> = told.lines().filter(|line| line.contains("has blocked its worker")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        for part in [
            &format!("upcall: the fiber spawned at {}:", file!()),
            ", upcall-0, for 100ms: 2 fibers that began there cannot go on meanwhile (spawned at",
            "upcall::blocking",
        ] {
            assert!(told[0].contains(part), "{told:?}");
        }
        return;
    }
    let _limit = time_limit(NAME);
    upcall::config().workers(1).install().unwrap();
    let others = [(); 2].map(|()| FIBERS.spawn(|| sleep(Duration::from_millis(10))));
    sleep(Duration::from_millis(2));
    let (sender, receiver) = mpsc::channel();
    let blocks = FIBERS.spawn(move || receiver.recv().unwrap());
    thread::sleep(Duration::from_millis(500));
    assert!(others.iter().all(|other| !other.is_finished()), "they are behind it");
    sender.send(()).unwrap();
    blocks.join().unwrap();
    others.into_iter().for_each(|other| other.join().unwrap());
}

#[test]
fn a_worker_whose_wait_runs_its_fibers_is_not_told() {
    const NAME: &str = "a_worker_whose_wait_runs_its_fibers_is_not_told";
    if let Some(told) = said(NAME, "100") {
        assert!(!told.contains("has blocked its worker"), "{told}");
        return;
    }
    let _limit = time_limit(NAME);
    upcall::config().workers(1).install().unwrap();
    let other = FIBERS.spawn(|| sleep(Duration::from_millis(300)));
    let blocks = FIBERS.spawn(|| upcall::downcall(|| enter(|| sleep(Duration::from_millis(600)))).unwrap());
    other.join().unwrap();
    blocks.join().unwrap();
}
