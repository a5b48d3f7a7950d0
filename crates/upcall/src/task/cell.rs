//! The cell of a task: everything that C's handle and the operation share.

use std::any::Any;
use std::cell::UnsafeCell;
use std::error::Error;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::completion::{self, Call, Completion};
use super::executor::Executor;
use super::limit::{self, Place};
use super::parts::AnyParts;
use super::state::{Claim, State};
use super::watchers::{self, Watch};
use super::{Task, TaskError, TaskStatus};
use crate::drop_guards::IgnoreDropPanic;
use crate::handle::table;
use crate::process::fork;
use crate::runtime::LocalRuntimeHandle;
use crate::runtime::operation::{self, LocalHome};

/// The end of an operation: a status, with what belongs to it.
pub(super) struct Outcome(TaskStatus, Option<Box<dyn Any + Send>>);

/// An error of an operation.
type Failure = Arc<dyn Error + Send + Sync>;

impl Outcome {
    pub fn value(value: impl Any + Send) -> Self {
        Self(TaskStatus::Done, Some(Box::new(value)))
    }

    pub fn failed(error: Failure) -> Self {
        Self(TaskStatus::Failed, Some(Box::new(error)))
    }

    pub fn panicked(message: String) -> Self {
        Self(TaskStatus::Panicked, Some(Box::new(message)))
    }

    /// The reason for the end is the status.
    pub fn ended(status: TaskStatus) -> Self {
        Self(status, None)
    }
}

pub(super) struct TaskCell {
    state: State,
    /// The number behind C's handle.
    number: usize,
    /// The epoch of the process that started the task: its low bits, to save memory.
    epoch: u32,
    executor: UnsafeCell<Option<Executor>>,
    completion: UnsafeCell<Call>,
    /// As the status tells: the value, a `Failure`, or the message of a panic as a `String`.
    outcome: UnsafeCell<Option<Box<dyn Any + Send>>>,
    /// Parts of few tasks, boxed to save the memory of the others. It never changes.
    rare: Option<Box<Rare>>,
    /// The descriptor for C, if it has asked for one. Guarded by the watchers' lock.
    pub(super) watch: Watch,
}

/// Parts of a cell, needed by few tasks.
struct Rare {
    /// The home of a task that only its starter's thread runs.
    local: Option<LocalHome>,
    /// The runtime whose thread is to call the completion.
    completes_on: Option<Box<LocalRuntimeHandle>>,
    /// The parts of a result that comes in parts.
    parts: Option<Arc<dyn AnyParts>>,
}

// SAFETY: the parts of the cell belong to one thread at a time, by the rule of `state`. The value
// of an outcome is `Send`, and only its owner uses it; the other outcomes are `Sync`, and never
// change once they are published. A completion is `Send`, and only its owner uses it.
unsafe impl Sync for TaskCell {}
// SAFETY: as for `Sync`; each part may be dropped on any thread.
unsafe impl Send for TaskCell {}

/// Everything for the cell of a task that is being started.
pub(super) struct Seed {
    call: Call,
    rare: Option<Box<Rare>>,
    place: Place,
}

impl Seed {
    #[inline]
    pub fn new(
        completion: Completion,
        local: Option<LocalHome>,
        parts: Option<Arc<dyn AnyParts>>,
        place: Place,
    ) -> Self {
        let Completion { call, on: completes_on } = completion;
        let is_rare = local.is_some() || completes_on.is_some() || parts.is_some();
        let rare = is_rare.then(|| Box::new(Rare { local, completes_on, parts }));
        Self { call, rare, place }
    }

    /// Makes the cell of a running operation, and its handle.
    pub fn running(self) -> Arc<TaskCell> {
        let cell = TaskCell::shared(self.call, self.rare, State::running(), None);
        if let Some(parts) = cell.parts() {
            parts.belong_to(&cell);
        }
        self.place.keep();
        cell
    }

    /// Makes the cell and the handle of an operation that has ended in its first poll, and calls
    /// the completion. Returns the handle.
    #[inline]
    pub fn ended(self, outcome: Outcome) -> *mut Task {
        let Self { call, rare, place } = self;
        let Outcome(status, outcome) = outcome;
        drop(place);
        if rare.as_ref().is_some_and(|rare| rare.completes_on.is_some()) {
            let cell = TaskCell::shared(call, rare, State::ended(status), outcome);
            cell.deliver();
            return cell.handle();
        }
        // Nobody has the handle before the call, so the cell need not keep the completion.
        let state = State::completed(status);
        let number = table::insert_owner(|number| {
            TaskHandle(Arc::new(TaskCell::new(number, Call::Nothing, rare, state, outcome)))
        });
        let task = ptr::without_provenance_mut(number);
        call.make(task, status);
        task
    }
}

/// A share of a cell, as the table of C's handles keeps it.
pub(super) struct TaskHandle(pub Arc<TaskCell>);

// SAFETY: the pointer is an `Arc`'s. Only this owner is named `Task`, a type without values.
unsafe impl table::Owner for TaskHandle {
    type Value = TaskCell;
    type Named = Task;

    fn into_raw(self) -> NonNull<TaskCell> {
        // SAFETY: an `Arc` does not lead to null.
        unsafe { NonNull::new_unchecked(Arc::into_raw(self.0).cast_mut()) }
    }

    unsafe fn from_raw(raw: NonNull<TaskCell>) -> Self {
        // SAFETY: the caller guarantees that the pointer comes from `into_raw`, and is converted
        // once.
        Self(unsafe { Arc::from_raw(raw.as_ptr()) })
    }
}

#[inline]
fn epoch() -> u32 {
    fork::epoch() as u32
}

impl TaskCell {
    fn new(
        number: usize,
        call: Call,
        rare: Option<Box<Rare>>,
        state: State,
        outcome: Option<Box<dyn Any + Send>>,
    ) -> Self {
        Self {
            state,
            number,
            epoch: epoch(),
            executor: UnsafeCell::new(None),
            completion: UnsafeCell::new(call),
            outcome: UnsafeCell::new(outcome),
            rare,
            watch: Watch::new(),
        }
    }

    /// Makes a cell and its handle. Returns a share of the cell.
    fn shared(
        call: Call,
        rare: Option<Box<Rare>>,
        state: State,
        outcome: Option<Box<dyn Any + Send>>,
    ) -> Arc<Self> {
        let mut shared = None;
        table::insert_owner(|number| {
            let cell = Arc::new(Self::new(number, call, rare, state, outcome));
            TaskHandle(shared.insert(cell).clone())
        });
        shared.expect("upcall: an owner is made for each handle")
    }

    /// C's handle.
    pub fn handle(&self) -> *mut Task {
        ptr::without_provenance_mut(self.number)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn parts(&self) -> Option<&Arc<dyn AnyParts>> {
        self.rare.as_ref()?.parts.as_ref()
    }

    /// Gives the cell its executor's handle. The starter calls this once.
    pub fn set_executor(&self, executor: Executor) {
        // SAFETY: nobody else touches the executor before the next step publishes it.
        unsafe { *self.executor.get() = Some(executor) };
        self.settle(self.state.set_executor());
    }

    /// Asks for the operation's end. Its home, or its executor, drops the future.
    pub fn cancel(&self) {
        self.settle(self.state.cancel());
    }

    /// Does with the executor's handle as a step of the state has decided.
    fn settle(&self, step: Claim) {
        // SAFETY: the caller's step has made it the handle's owner, if it is not `Others`.
        let take = || unsafe { (*self.executor.get()).take() };
        match step {
            Claim::Others => {}
            Claim::ToCancel => take().into_iter().for_each(Executor::cancel),
            Claim::ToDrop => drop(take()),
        }
    }

    /// Ends the operation. Its future has been dropped. Only the operation calls this, once.
    pub fn end(self: &Arc<Self>, outcome: Outcome) {
        let Outcome(status, outcome) = outcome;
        // SAFETY: only the operation's end writes the outcome, once, and others read it only after
        // the next step.
        unsafe { *self.outcome.get() = outcome };
        let end = self.state.end(status);
        self.settle(end.executor);
        limit::give_back();
        if end.is_watched {
            watchers::tell(self);
        }
        operation::after_end(|| self.deliver());
    }

    /// Calls the completion, on the thread chosen for it.
    pub fn deliver(self: &Arc<Self>) {
        match self.rare.as_ref().and_then(|rare| rare.completes_on.as_ref()) {
            Some(runtime) => completion::send(runtime, self.clone()),
            None => self.complete(),
        }
    }

    /// Calls the completion here, if nobody has.
    pub fn complete(&self) {
        if self.state.complete() {
            // SAFETY: the step made this call the completion's owner.
            let call = unsafe { std::mem::replace(&mut *self.completion.get(), Call::Nothing) };
            call.make(self.handle(), self.status());
        }
    }

    /// Whether the operation runs only in the process from which this one was forked.
    fn is_lost(&self) -> bool {
        match self.rare.as_ref().and_then(|rare| rare.local) {
            Some(home) => home.is_lost(),
            None => self.epoch != epoch(),
        }
    }

    /// The status. In the child of a fork, an operation of its parent is lost.
    #[inline]
    pub fn status(&self) -> TaskStatus {
        match self.state.status() {
            Some(status) => status,
            None if self.is_lost() => TaskStatus::Lost,
            None => TaskStatus::Running,
        }
    }

    /// Whether nothing will come any more.
    pub fn has_ended(&self) -> bool {
        self.status() != TaskStatus::Running
    }

    /// Whether C finds something: the end, or a part. Then the descriptor is readable.
    pub fn has_news(&self) -> bool {
        self.has_ended() || self.parts().is_some_and(|parts| !parts.is_empty())
    }

    /// In the child of a fork: calls the completion of an operation that only the parent runs, or
    /// of one whose completion only the parent was about to call.
    #[inline]
    pub fn complete_if_forked(&self) {
        if self.epoch != epoch() && self.has_ended() {
            self.complete();
        }
    }

    /// The error of a task that has not ended with a value.
    pub fn error(&self) -> Option<TaskError> {
        Some(match self.status() {
            TaskStatus::Done => return None,
            TaskStatus::Running => TaskError::NotDone,
            TaskStatus::Cancelled => TaskError::Cancelled,
            TaskStatus::DeadlineExceeded => TaskError::DeadlineExceeded,
            TaskStatus::Lost => TaskError::Lost,
            TaskStatus::Failed => TaskError::Failed(self.outcome::<Failure>().clone()),
            TaskStatus::Panicked => TaskError::Panicked(self.outcome::<String>().clone()),
        })
    }

    /// What belongs to an end by an error or a panic, as the caller has seen it in the status.
    fn outcome<T: 'static>(&self) -> &T {
        // SAFETY: the status shows that the outcome is written. Such outcomes never change.
        let outcome = unsafe { &*self.outcome.get() };
        let outcome = outcome.as_ref().and_then(|outcome| outcome.downcast_ref());
        outcome.expect("upcall: the outcome is the one that the status names")
    }

    /// Takes the value of a finished operation.
    pub fn take<T: 'static>(&self) -> Result<T, TaskError> {
        if let Some(error) = self.error() {
            return Err(error);
        }
        if !self.state.take() {
            return Err(TaskError::Taken);
        }
        // SAFETY: the step made this call the value's owner.
        let value = unsafe { (*self.outcome.get()).take() };
        let value = value.expect("upcall: the outcome is the one that the status names");
        value.downcast().map(|value| *value).map_err(|value| {
            // SAFETY: this call still owns the value.
            unsafe { *self.outcome.get() = Some(value) };
            self.state.put_back();
            TaskError::WrongType { expected: std::any::type_name::<T>() }
        })
    }
}

impl Drop for TaskCell {
    fn drop(&mut self) {
        drop(IgnoreDropPanic::new(self.outcome.get_mut().take()));
    }
}
