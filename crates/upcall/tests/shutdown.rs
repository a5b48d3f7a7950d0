//! The end of the workers. A process has it once, so each case runs in its own process.

mod common;

use std::panic::Location;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use async_channel::Receiver;
use common::FIBERS;
use common::{child, part, stderr_of_success, time_limit};
use upcall::{blocking, shutdown, sleep, wait};

/// Starts the work of the case `activity`, in progress until `go` is closed.
///
/// Returns the source line expected in the message, if any.
fn begin(activity: &str, go: Receiver<()>) -> Option<String> {
    let (reaches, reached) = mpsc::channel();
    let here = |line: u32| Some(format!("{}:{line}:", file!()));
    let line = match activity {
        "idle" => {
            FIBERS.spawn(|| wait(async {})).join().unwrap();
            None
        }
        "running" => {
            drop(FIBERS.spawn(move || {
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
            drop(FIBERS.builder().name("Penelope").spawn(waits));
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
            // More fibers than the largest number of workers.
            for _ in 0..600 {
                let go = go.clone();
                drop(FIBERS.spawn(move || assert!(go.recv_blocking().is_err())));
            }
            return here(line!() - 2);
        }
    };
    if activity != "idle" {
        reached.recv().unwrap();
    }
    line
}

/// The messages expected for the case `activity` if the time is too short.
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
            FIBERS.spawn(|| ()).join().unwrap_err().is_refused(),
            "nothing is spawned any more, also if it failed"
        );
        Some(release)
    };
    drop(release);
    shutdown(ENOUGH).unwrap();
    shutdown(Duration::ZERO).expect("it may be called again");
    let refused = FIBERS.spawn(|| unreachable!()).join().unwrap_err();
    assert!(refused.is_refused());
    assert!(refused.to_string().contains("upcall::shutdown has been called"), "{refused}");
    // Calls without a worker still work.
    assert_eq!(blocking(|| thread::current().id()), thread::current().id());
    wait(FIBERS.fiber(|| sleep(Duration::from_millis(1))));
    assert_eq!(FIBERS.local_runtime().unwrap().spawn_local(|| 5).join().unwrap(), 5);
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
            FIBERS.spawn(|| {
                let spawned = (0..).map_while(|_| {
                    sleep(Duration::from_micros(100));
                    FIBERS.spawn(|| ()).join().ok()
                });
                spawned.count()
            })
        })
        .collect();
    shutdown(ENOUGH).unwrap();
    fibers.into_iter().for_each(|fiber| _ = fiber.join().unwrap());
}
