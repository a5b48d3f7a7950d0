//! Upcalls, downcalls and waits as spans, as seen by a subscriber.
#![cfg(feature = "tracing")]

use std::sync::{Arc, Mutex};

use tracing::{Event, Id, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use upcall::{downcall, downcall_on_fiber, enter, wait, yield_now};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// Records the spans entered and exited, and the spans around each event.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap().push(note);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn name<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, context: &Context<'_, S>) -> &'static str {
    context.span(id).unwrap().name()
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &Id, _: Context<'_, S>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!(" {field}={value:?}");
            }
        }
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        self.add(format!("new {}{}", attributes.metadata().name(), fields.0));
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.add(format!("+{}", name(id, &context)));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.add(format!("-{}", name(id, &context)));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event).into_iter().flatten();
        let spans: Vec<_> = scope.map(|span| span.name()).collect();
        self.add(format!("{}: {}", event.metadata().name(), spans.join(" in ")));
    }
}

fn noted(f: impl FnOnce(&Notes)) -> Vec<String> {
    let notes = Notes::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(notes.clone()), || f(&notes));
    notes.take()
}

#[test]
fn nested_calls_are_nested_spans() {
    let notes = noted(|_| {
        enter(|| downcall(|| enter(|| tracing::event!(name: "here", tracing::Level::INFO, ""))))
            .unwrap()
            .unwrap()
    });
    let told: Vec<_> = notes.iter().filter(|note| !note.starts_with("new")).collect();
    let here = "here: upcall in downcall in upcall";
    assert_eq!(told, ["+upcall", "+downcall", "+upcall", here, "-upcall", "-downcall", "-upcall"]);
    let function = "new upcall function=\"spans::nested_calls_are_nested_spans\"";
    assert!(notes.iter().any(|note| note == function), "{notes:?}");
}

#[test]
fn a_fiber_leaves_its_spans_when_it_is_suspended() {
    let notes = noted(|notes| {
        let runtime = FIBERS.local_runtime().unwrap();
        let work = |what: &'static str| {
            let notes = notes.clone();
            move || {
                enter(|| {
                    downcall_on_fiber(|| {
                        enter(|| {
                            notes.add(format!("{what} begins"));
                            yield_now();
                            notes.add(format!("{what} goes on"));
                            wait(async { tracing::event!(name: "waits", tracing::Level::INFO, "") });
                        })
                    })
                })
                .unwrap()
                .unwrap();
            }
        };
        let fibers = [runtime.spawn_local(work("a")), runtime.spawn_local(work("b"))];
        while runtime.run_ready(usize::MAX) != 0 {}
        assert!(fibers.iter().all(|fiber| fiber.is_finished()));
    });
    let told: Vec<_> = notes.iter().map(String::as_str).filter(|note| !note.starts_with("new")).collect();
    let begins = |what| ["+upcall", "+downcall", "+upcall", what, "-upcall", "-downcall", "-upcall"];
    let goes_on = |what| {
        let waits = "waits: wait in upcall in downcall in upcall";
        ["+upcall", "+downcall", "+upcall", what, "+wait", waits, "-wait", "-upcall", "-downcall", "-upcall"]
    };
    let begun = [begins("a begins"), begins("b begins")].concat();
    assert_eq!(told, [begun, [goes_on("a goes on"), goes_on("b goes on")].concat()].concat());
}

#[test]
fn panics_leave_their_spans() {
    let notes = noted(|_| {
        let upcall = || drop(enter(|| std::panic::resume_unwind(Box::new(1))));
        assert!(std::panic::catch_unwind(|| downcall(upcall)).is_err());
    });
    let told: Vec<_> = notes.iter().filter(|note| !note.starts_with("new")).collect();
    assert_eq!(told, ["+downcall", "+upcall", "-upcall", "-downcall"]);
}
