//! A faulty subscriber changes only the trace, if it panics, calls upcall, waits, or is gone.
#![cfg(feature = "tracing")]

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::FIBERS;
use common::{AtDrop, child, part, stderr_of_success, time_limit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use upcall::{downcall, enter, sleep, wait, yield_now};

/// Does something hostile in the named methods.
struct Hostile(&'static str, fn(&'static str));

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

impl Hostile {
    fn method(&self, name: &'static str) {
        CALLS.fetch_add(1, Relaxed);
        let is_one = match self.0 {
            "all" => true,
            // These methods may run while another method's panic would unwind.
            "all_but_the_first" => name != "enabled" && name != "new_span",
            one => one == name,
        };
        if is_one && DEPTH.get() < 10 {
            DEPTH.set(DEPTH.get() + 1);
            let _out = AtDrop(|| DEPTH.set(DEPTH.get() - 1));
            (self.1)(name);
        }
    }
}

impl Subscriber for Hostile {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        self.method("enabled");
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        self.method("new_span");
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {
        self.method("enter");
    }
    fn exit(&self, _: &Id) {
        self.method("exit");
    }
    fn clone_span(&self, id: &Id) -> Id {
        self.method("clone_span");
        id.clone()
    }
    fn try_close(&self, _: Id) -> bool {
        self.method("try_close");
        false
    }
}

const METHODS: [&str; 8] =
    ["enabled", "new_span", "enter", "exit", "clone_span", "try_close", "all", "all_but_the_first"];

/// Uses everything with spans, and checks the results.
fn all_is_as_ever() {
    assert_eq!(enter(|| downcall(|| enter(|| 5).unwrap())).unwrap(), 5);
    let panic = catch_unwind(|| downcall(|| _ = enter(|| panic!("the user's"))));
    assert_eq!(common::message(panic.unwrap_err()), "the user's");
    // While another panic unwinds.
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _calls = AtDrop(|| assert_eq!(enter(|| downcall(|| 6)).unwrap(), 6));
        panic!("outer");
    }));
    assert_eq!(common::message(panic.unwrap_err()), "outer");
    let fiber = FIBERS.fiber(|| {
        enter(|| {
            yield_now();
            sleep(Duration::from_millis(1));
            yield_now();
        })
        .unwrap();
        7
    });
    assert_eq!(wait(fiber), 7);
    let runtime = FIBERS.local_runtime().unwrap();
    let fibers = [1, 2].map(|n| {
        runtime.spawn_local(move || {
            wait(async { yield_now() });
            n
        })
    });
    assert_eq!(fibers.map(|fiber| fiber.join().unwrap()), [1, 2]);
    let dropped = runtime.spawn_local(|| wait(std::future::pending::<()>()));
    runtime.run_ready(10);
    drop(runtime);
    assert!(dropped.join().unwrap_err().is_aborted());
    let mut count = 0;
    upcall::callback::scope(
        |n: u32| count += n,
        || (),
        |add| {
            // SAFETY: the scope is open, so `add` is alive.
            unsafe { add.data_first()(add.data(), 3) }
        },
    );
    assert_eq!(count, 3);
    assert!(!std::thread::panicking());
}

#[test]
fn a_hostile_subscriber_changes_nothing() {
    let deeds: [fn(&'static str); 4] = [
        |name| panic!("{name}"),
        |_| _ = enter(|| downcall(|| 1)).unwrap(),
        |_| sleep(Duration::from_millis(1)),
        |_| wait(FIBERS.fiber(yield_now)),
    ];
    let Some(part) = part() else {
        for method in METHODS {
            for deed in ["0", "1", "2", "3"] {
                let test = "a_hostile_subscriber_changes_nothing";
                let said = stderr_of_success(&child(test, &format!("{method} {deed}"), &[]));
                let reports = said.matches("upcall: the tracing subscriber panicked").count();
                assert_eq!(reports, usize::from(deed == "0"), "{method} {deed}: {said}");
            }
        }
        return;
    };
    let _ends = time_limit("a_hostile_subscriber_changes_nothing");
    let (method, deed) = part.split_once(' ').unwrap();
    let method = METHODS.into_iter().find(|name| *name == method).unwrap();
    tracing::subscriber::set_global_default(Hostile(method, deeds[deed.parse::<usize>().unwrap()])).unwrap();
    all_is_as_ever();
    assert!(CALLS.load(Relaxed) > 0);
}

#[test]
fn a_subscriber_whose_variables_are_gone_is_not_asked() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            assert_eq!(enter(|| downcall(|| 8)).unwrap(), 8);
        }
    }
    thread_local! {
        static FIRST: Late = const { Late };
    }
    if part().is_some() {
        use tracing_subscriber::layer::SubscriberExt;
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(None::<Nothing>))
            .unwrap();
        for early in [true, false] {
            let thread = std::thread::spawn(move || {
                if early {
                    FIRST.with(|_| ());
                }
                all_is_as_ever();
                FIRST.with(|_| ());
            });
            thread.join().unwrap();
        }
        return;
    }
    let said = stderr_of_success(&child("a_subscriber_whose_variables_are_gone_is_not_asked", "alone", &[]));
    assert!(!said.contains("during or after destruction"), "{said}");
}

struct Nothing;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Nothing {}
