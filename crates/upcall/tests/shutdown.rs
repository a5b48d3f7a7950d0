//! The end of the workers, which a process has once: each case is a process of its own.

mod common;

use std::panic::Location;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use async_channel::Receiver;
use common::{child, part, stderr_of_success, time_limit};
use upcall::{Fiber, LocalRuntime, blocking, shutdown, sleep, spawn, wait};

/// What the process does when it is shut down, in the case `activity`, until `go` comes. In the end, the line that is to be told of it.
fn begin(activity: &str, go: Receiver<()>) -> Option<String> {
    let (reaches, reached) = mpsc::channel();
    let here = |line: u32| Some(format!("{}:{line}:", file!()));
    let line = match activity {
        "idle" => {
            spawn(|| wait(async {})).join().unwrap();
            None
        }
        "running" => {
            drop(spawn(move || {
                reaches.send(()).unwrap();
                assert!(go.recv_blocking().is_err());
            }));
            here(line!() - 4)
        }
        "waiting" => {
            let waits = move || {
                reaches.send(()).unwrap();
                assert!(wait(go.recv()).is_err());
            };
            drop(Fiber::builder().name("Penelope").spawn(waits));
            here(line!() - 3)
        }
        "blocking" => {
            let call = move || {
                reaches.send(()).unwrap();
                assert!(go.recv_blocking().is_err());
            };
            thread::spawn(move || blocking(call));
            None
        }
        _ => {
            // More than there may be workers.
            for _ in 0..600 {
                let go = go.clone();
                drop(spawn(move || assert!(go.recv_blocking().is_err())));
            }
            return here(line!() - 2);
        }
    };
    if activity != "idle" {
        reached.recv().unwrap();
    }
    line
}

/// What is to be told of it when the time is too short.
fn told(activity: &str) -> &'static [&'static str] {
    match activity {
        "idle" => &[],
        "running" => &["a fiber has not ended", "\n  unnamed, spawned at ", " runs on upcall-"],
        "waiting" => &["a fiber has not ended", "\n  Penelope, spawned at ", "waits at ", " on upcall-"],
        "blocking" => &["a blocking call has not returned"],
        _ => &[" fibers have not ended", ", has not begun"],
    }
}

const ENOUGH: Duration = Duration::from_secs(30);

#[test]
fn shut_down_in_every_state() {
    const NAME: &str = "shut_down_in_every_state";
    let Some(part) = part() else {
        for activity in ["idle", "running", "waiting", "blocking", "not begun"] {
            for time in ["enough", "too little"] {
                stderr_of_success(&child(NAME, &format!("{activity}, {time}"), &[("UPCALL_WORKERS", "1")]));
            }
        }
        return;
    };
    let _limit = time_limit(NAME);
    let (activity, time) = part.split_once(", ").unwrap();
    let (release, go) = async_channel::bounded::<()>(1);
    let line = begin(activity, go);
    let release = if time == "enough" {
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            drop(release);
        });
        None
    } else {
        match shutdown(Duration::from_millis(20)) {
            Ok(()) => assert_eq!(activity, "idle"),
            Err(unfinished) => {
                let text = unfinished.to_string();
                assert!(text.starts_with("shutdown ran out of time: "), "{text}");
                let missing =
                    told(activity).iter().copied().chain(line.as_deref()).find(|told| !text.contains(told));
                assert_eq!(missing, None, "{text}");
                assert_eq!(
                    unfinished.fibers.len() + unfinished.blocking_calls,
                    text.lines().count().max(2) - 1
                );
                let here = |at: &Location| at.file() == file!();
                assert!(unfinished.fibers.iter().filter_map(|fiber| fiber.spawned_at).all(here));
            }
        }
        assert!(
            spawn(|| ()).join().unwrap_err().is_refused(),
            "nothing is spawned any more, also if it failed"
        );
        Some(release)
    };
    drop(release);
    shutdown(ENOUGH).unwrap();
    shutdown(Duration::ZERO).expect("it may be called again");
    let refused = spawn(|| unreachable!()).join().unwrap_err();
    assert!(refused.is_refused());
    assert!(refused.to_string().contains("upcall::shutdown has been called"), "{refused}");
    // What needs no worker works as before.
    assert_eq!(blocking(|| thread::current().id()), thread::current().id());
    wait(Fiber::new(|| sleep(Duration::from_millis(1))));
    assert_eq!(LocalRuntime::new().unwrap().spawn_local(|| 5).join().unwrap(), 5);
}

#[test]
fn what_fibers_spawn_before_it_ends_is_refused_and_they_end() {
    const NAME: &str = "what_fibers_spawn_before_it_ends_is_refused_and_they_end";
    if part().is_none() {
        stderr_of_success(&child(NAME, "spawning", &[]));
        return;
    }
    let _limit = time_limit(NAME);
    let fibers: Vec<_> = (0..50)
        .map(|_| {
            spawn(|| {
                let spawned = (0..).map_while(|_| {
                    sleep(Duration::from_micros(100));
                    spawn(|| ()).join().ok()
                });
                spawned.count()
            })
        })
        .collect();
    shutdown(ENOUGH).unwrap();
    fibers.into_iter().for_each(|fiber| _ = fiber.join().unwrap());
}
