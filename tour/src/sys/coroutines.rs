//! Coroutines of a C host that take turns.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::{catch_unwind, resume_unwind};
use std::ptr;
use std::rc::Rc;
use std::thread;

use super::Context;

thread_local! {
    /// The coroutine running on this thread.
    static RUNNING: Cell<*const Coroutine> = const { Cell::new(ptr::null()) };
}

struct Coroutine {
    context: Context,
    job: Cell<Option<Box<dyn FnOnce()>>>,
    done: Cell<bool>,
}

/// A coroutine, and the place for its job's result.
type Started<T> = (Coroutine, Rc<Cell<Option<thread::Result<T>>>>);

/// Does each job on a coroutine of its own. They take turns until all are done.
///
/// Returns their results, and the number of turns.
pub fn take_turns<T: 'static>(jobs: &[fn() -> T]) -> Result<(Vec<T>, usize), &'static str> {
    let started: Result<Vec<Started<T>>, _> = jobs.iter().map(|job| start(*job)).collect();
    let (coroutines, results): (Vec<_>, Vec<_>) = started?.into_iter().unzip();
    let mut turns = 0;
    while coroutines.iter().any(|coroutine| !coroutine.done.get()) {
        for coroutine in coroutines.iter().filter(|coroutine| !coroutine.done.get()) {
            coroutine.resume();
            turns += 1;
        }
    }
    let finished = |result: Rc<Cell<Option<thread::Result<T>>>>| {
        let result = result.take().expect("a coroutine that is done has left its result");
        result.unwrap_or_else(|payload| resume_unwind(payload))
    };
    Ok((results.into_iter().map(finished).collect(), turns))
}

/// Makes a coroutine for `job`. A panic cannot leave a coroutine, so it is a result, too.
fn start<T: 'static>(job: fn() -> T) -> Result<Started<T>, &'static str> {
    let result = Rc::new(Cell::new(None));
    let slot = result.clone();
    let job: Box<dyn FnOnce()> = Box::new(move || slot.set(Some(catch_unwind(job))));
    let context = Context::new()?;
    Ok((Coroutine { context, job: Cell::new(Some(job)), done: Cell::new(false) }, result))
}

/// The progress handler: lets the next coroutine run. Outside coroutines, it does nothing.
pub extern "C" fn give_way(_: *mut c_void) -> c_int {
    // SAFETY: the running coroutine is alive: its owner is suspended in `resume`.
    if let Some(coroutine) = unsafe { RUNNING.get().as_ref() } {
        coroutine.context.give_way();
    }
    0
}

impl Coroutine {
    /// Resumes the coroutine until it gives way or is done.
    fn resume(&self) {
        RUNNING.set(self);
        self.context.resume();
        RUNNING.set(ptr::null());
    }
}

/// The first frame of a coroutine. It never returns: the last switch leaves it for ever.
pub extern "C" fn main() {
    // SAFETY: `resume` has just set `RUNNING` to the coroutine that begins here.
    let coroutine = unsafe { &*RUNNING.get() };
    if let Some(job) = coroutine.job.take() {
        job();
    }
    coroutine.done.set(true);
    coroutine.context.give_way();
    unreachable!("a coroutine that is done is not resumed");
}
