//! A fiber's life, enumerated, and compared with a model.
//!
//! The cases are all combinations of the fiber's state, the actions on its handle, its executor,
//! and its end.

mod common;

use std::panic::resume_unwind;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};

use async_channel::{Receiver, Sender};
use common::{AtDrop, poll, time_limit};
use upcall::{JoinError, JoinHandle, snapshot, wait};

/// The fiber's state when its handle is used.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    NotBegun,
    Running,
    Waiting,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Runs {
    OnWorker,
    OnLocalRuntime,
}

/// The fiber's end after that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Returns,
    Panics,
    /// Waits for ever, until the fiber is aborted or the case is over.
    Waits,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Abort,
    IsFinished,
    /// This action and the next two consume the handle.
    DropHandle,
    Join,
    AwaitOnceAndDrop,
}

use Action::*;
use common::FIBERS;

type Case = (State, Runs, End, Vec<Action>);

/// Observations of one fiber.
#[derive(Default)]
struct Observed {
    began_on: Mutex<Option<ThreadId>>,
    closure_drops: AtomicU32,
    /// Results and payloads.
    made: AtomicU32,
    dropped: AtomicU32,
}

/// A counted result or payload of a fiber.
struct Value(Arc<Observed>);

impl Value {
    fn new(observed: &Arc<Observed>) -> Self {
        observed.made.fetch_add(1, SeqCst);
        Self(observed.clone())
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, SeqCst);
    }
}

/// Channels that hold a fiber up. It continues when their senders are dropped.
struct Gates {
    /// Receives a message when the fiber has reached its state.
    reached: mpsc::Receiver<()>,
    /// Its drop ends the fiber's state.
    go: Sender<()>,
    /// Its drop ends the final wait.
    release: Sender<()>,
}

fn body(state: State, end: End, observed: Arc<Observed>) -> (impl FnOnce() -> Value + Send, Gates) {
    let (reaches, reached) = mpsc::channel();
    let (go, goes): (_, Receiver<()>) = async_channel::bounded(1);
    let (release, released): (_, Receiver<()>) = async_channel::bounded(1);
    let inner = observed.clone();
    let counts = AtDrop(move || _ = inner.closure_drops.fetch_add(1, SeqCst));
    let body = move || {
        let _counts = counts;
        *observed.began_on.lock().unwrap() = Some(thread::current().id());
        if state != State::NotBegun {
            reaches.send(()).unwrap();
        }
        match state {
            State::Running => assert!(goes.recv_blocking().is_err()),
            State::Waiting => assert!(wait(goes.recv()).is_err()),
            State::NotBegun | State::Ended => {}
        }
        match end {
            End::Returns => {}
            // As `panic!` does, without the panic hook.
            End::Panics => resume_unwind(Box::new(Value::new(&observed))),
            End::Waits => assert!(wait(released.recv()).is_err()),
        }
        Value::new(&observed)
    };
    (body, Gates { reached, go, release })
}

fn until(is: impl Fn() -> bool) {
    while !is() {
        upcall::yield_now();
    }
}

/// Does the actions of `case`, and compares the results with the model.
///
/// `begin` lets a fiber begin that has not begun yet, before it is joined. Returns false if such a
/// fiber began on another thread: another worker may take it.
fn act(
    case: &Case,
    handle: JoinHandle<Value>,
    gates: Gates,
    observed: &Arc<Observed>,
    begin: &dyn Fn(),
) -> bool {
    let &(state, _, end, ref actions) = case;
    let mut handle = Some(Box::pin(handle));
    let (mut aborted, mut ended_here) = (false, false);
    let mut go = Some(gates.go);
    for action in actions {
        let now = handle.as_mut().expect("the actions that use it up are the last ones");
        match action {
            Abort => {
                now.abort();
                aborted |= state != State::Ended;
            }
            IsFinished if !aborted => assert_eq!(now.is_finished(), state == State::Ended),
            // Aborted: the fiber may have ended by now.
            IsFinished => _ = now.is_finished(),
            DropHandle => handle = None,
            AwaitOnceAndDrop => {
                let polled = poll(now);
                assert!(polled.is_pending() || state == State::Ended || aborted);
                handle = None;
            }
            Join => {
                let mut joined = poll(now);
                assert!(joined.is_pending() || state == State::Ended || aborted);
                go = None;
                begin();
                if end == End::Waits && !aborted && joined.is_pending() {
                    // Nothing else will end the fiber.
                    (0..3).for_each(|_| upcall::yield_now());
                    joined = poll(now);
                    assert!(joined.is_pending());
                    now.abort();
                    ended_here = true;
                }
                let handle = handle.take().expect("it was just there");
                let result = match joined {
                    std::task::Poll::Ready(result) => result,
                    std::task::Poll::Pending => wait(handle),
                };
                check(state, end, aborted || ended_here, result);
            }
        }
    }
    let raced = state == State::NotBegun
        && observed.began_on.lock().unwrap().is_some_and(|began_on| began_on != thread::current().id());
    let unbegun = state == State::NotBegun && aborted && !raced;
    drop((go, handle, gates.release));
    begin();
    until(|| observed.closure_drops.load(SeqCst) != 0);
    until(|| observed.made.load(SeqCst) == observed.dropped.load(SeqCst));
    assert_eq!(observed.closure_drops.load(SeqCst), 1);
    let made = observed.made.load(SeqCst);
    assert!(made <= 1);
    if unbegun {
        assert!(observed.began_on.lock().unwrap().is_none(), "aborted, and begun all the same");
    }
    if state == State::Ended || (!aborted && !ended_here) {
        assert_eq!(made, 1);
    }
    !raced
}

/// The model of a join's result.
fn check(state: State, end: End, aborted: bool, result: Result<Value, JoinError>) {
    // A running fiber may end before it notices the abort.
    let either = state == State::Running;
    match (result, end) {
        (Err(error), _) if error.is_aborted() => assert!(aborted, "aborted by nobody"),
        (Ok(_), End::Returns) => assert!(!aborted || either, "a result of an aborted fiber"),
        (Err(error), End::Panics) => {
            assert!(error.is_panic() && (!aborted || either));
            assert!(error.into_panic().unwrap().is::<Value>());
        }
        (result, _) => panic!("{:?}", result.map(|_| "a value")),
    }
}

/// Runs one case. Returns false if a fiber that had not begun was begun by another worker.
fn run(case: &Case) -> bool {
    let &(state, runs, end, _) = case;
    let observed = Arc::new(Observed::default());
    let (body, gates) = body(state, end, observed.clone());
    match runs {
        Runs::OnWorker if state == State::NotBegun => {
            // The only worker is busy with the driver, so the fiber stays in its queue.
            let (case, observed) = (case.clone(), observed.clone());
            let driver = FIBERS.spawn(move || act(&case, FIBERS.spawn(body), gates, &observed, &|| ()));
            driver.join().unwrap()
        }
        Runs::OnWorker => {
            let handle = FIBERS.spawn(body);
            gates.reached.recv().unwrap();
            if state == State::Ended {
                until(|| handle.is_finished());
            }
            act(case, handle, gates, &observed, &|| ())
        }
        Runs::OnLocalRuntime => thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            let (over, is_over) = async_channel::bounded::<()>(1);
            let (begin, begins) = mpsc::channel::<()>();
            scope.spawn(move || {
                let runtime = FIBERS.local_runtime().unwrap();
                send.send(runtime.spawn_local(body)).unwrap();
                if state == State::NotBegun {
                    assert!(begins.recv().is_err());
                } else {
                    runtime.run_ready(usize::MAX);
                }
                drop(send);
                // While it waits, the thread runs its fibers.
                assert!(wait(is_over.recv()).is_err());
            });
            let handle = receive.recv().unwrap();
            match state {
                State::NotBegun => {}
                State::Running => gates.reached.recv().unwrap(),
                // When the runtime has nothing more to do, the fiber waits or has ended.
                State::Waiting | State::Ended => assert!(receive.recv().is_err()),
            }
            let begin = Mutex::new(Some(begin));
            act(case, handle, gates, &observed, &|| drop(begin.lock().unwrap().take()));
            drop(over);
            true
        }),
    }
}

/// All sequences of up to three actions. An action that consumes the handle can only be the last.
fn sequences() -> Vec<Vec<Action>> {
    let mut all = vec![vec![]];
    for length in 1..=3 {
        for at in 0..all.len() {
            let sequence: &Vec<Action> = &all[at];
            if sequence.len() + 1 == length
                && sequence.iter().all(|action| matches!(action, Abort | IsFinished))
            {
                let longer = [Abort, IsFinished, DropHandle, Join, AwaitOnceAndDrop].map(|action| {
                    let mut longer = all[at].clone();
                    longer.push(action);
                    longer
                });
                all.extend(longer);
            }
        }
    }
    all
}

/// Stacks in use, without the possible spares of the attached threads.
fn stacks_left() -> usize {
    const SPARES: usize = 8;
    let snapshot = snapshot();
    snapshot.pool.in_use.saturating_sub(SPARES * snapshot.threads.len())
}

/// Runs of a case until no other worker takes its fiber.
///
/// Where a worker that computes is not told from a blocked one, on a busy machine, another worker
/// takes it often.
const TRIES: usize = if cfg!(target_os = "linux") { 20 } else { 2000 };

#[test]
fn every_life() {
    let _limit = time_limit("every_life");
    // One worker, so the order of its fibers is certain.
    upcall::config().workers(1).install().unwrap();
    let mut cases = 0;
    for state in [State::NotBegun, State::Running, State::Waiting, State::Ended] {
        for runs in [Runs::OnWorker, Runs::OnLocalRuntime] {
            for end in [End::Returns, End::Panics, End::Waits] {
                if (state, end) == (State::Ended, End::Waits) {
                    continue;
                }
                for sequence in sequences() {
                    let case = (state, runs, end, sequence);
                    let said = AtDrop(|| _ = thread::panicking().then(|| eprintln!("in case {case:?}")));
                    assert!((0..TRIES).any(|_| run(&case)), "never as it should be");
                    until(|| stacks_left() == 0);
                    drop(said);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 22 * 36);
}
