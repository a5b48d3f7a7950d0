//! A fiber's life, enumerated: what it is doing × what is done with its handle × where it runs × how it ends. A model says what must come of
//! it.

mod common;

use std::panic::resume_unwind;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, ThreadId};

use async_channel::{Receiver, Sender};
use common::{AtDrop, poll, time_limit};
use upcall::{JoinError, JoinHandle, LocalRuntime, snapshot, spawn, wait};

/// What the fiber is doing when its handle is used.
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

/// What it does after that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Returns,
    Panics,
    /// Waits until it is aborted, or the case is over.
    Waits,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Abort,
    IsFinished,
    /// The others use the handle up.
    DropHandle,
    Join,
    AwaitOnceAndDrop,
}

use Action::*;

type Case = (State, Runs, End, Vec<Action>);

/// What was observed of one fiber.
#[derive(Default)]
struct Observed {
    began_on: Mutex<Option<ThreadId>>,
    closure_drops: AtomicU32,
    /// Results and payloads.
    made: AtomicU32,
    dropped: AtomicU32,
}

/// What a fiber returns or panics with: counted.
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

/// What holds a fiber up: it goes on when the senders are gone.
struct Gates {
    /// Told when the state is reached.
    reached: mpsc::Receiver<()>,
    /// Ends its state.
    go: Sender<()>,
    /// Ends its waiting for ever.
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
            // As a panic does that no hook sees.
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

/// Does the actions, and compares with the model; has a fiber that has not begun `begin` when it is joined. Says whether that held: a worker's
/// fiber may be begun by another one.
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
            // It may have ended by now.
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
                    // Nobody else will end it.
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

/// The model: what joining gives.
fn check(state: State, end: End, aborted: bool, result: Result<Value, JoinError>) {
    // It may end before it learns of the abort.
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

/// A case from beginning to end; says whether it was as it should be.
fn run(case: &Case) -> bool {
    let &(state, runs, end, _) = case;
    let observed = Arc::new(Observed::default());
    let (body, gates) = body(state, end, observed.clone());
    match runs {
        Runs::OnWorker if state == State::NotBegun => {
            // Kept by the worker, which has something else to do.
            let (case, observed) = (case.clone(), observed.clone());
            let driver = spawn(move || act(&case, spawn(body), gates, &observed, &|| ()));
            driver.join().unwrap()
        }
        Runs::OnWorker => {
            let handle = spawn(body);
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
                let runtime = LocalRuntime::new().unwrap();
                send.send(runtime.spawn_local(body)).unwrap();
                if state == State::NotBegun {
                    assert!(begins.recv().is_err());
                } else {
                    runtime.run_ready(usize::MAX);
                }
                drop(send);
                // Meanwhile, it runs what there is.
                assert!(wait(is_over.recv()).is_err());
            });
            let handle = receive.recv().unwrap();
            match state {
                State::NotBegun => {}
                State::Running => gates.reached.recv().unwrap(),
                // It waits, or has ended, when the runtime has nothing more to do.
                State::Waiting | State::Ended => assert!(receive.recv().is_err()),
            }
            let begin = Mutex::new(Some(begin));
            act(case, handle, gates, &observed, &|| drop(begin.lock().unwrap().take()));
            drop(over);
            true
        }),
    }
}

/// All sequences of up to three actions; what comes after one that uses the handle up would have none to use.
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

/// Stacks in use beyond those that attached threads may keep.
fn stacks_left() -> usize {
    const SPARES: usize = 8;
    let snapshot = snapshot();
    snapshot.pool.in_use.saturating_sub(SPARES * snapshot.threads.len())
}

#[test]
fn every_life() {
    let _limit = time_limit("every_life");
    // One worker, so that what it has to do first is certain.
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
                    assert!((0..20).any(|_| run(&case)), "never as it should be");
                    until(|| stacks_left() == 0);
                    drop(said);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 22 * 36);
}
