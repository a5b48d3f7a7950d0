//! Coroutines of a C host: stacks from the heap, switched by `swapcontext`, and not described to
//! upcall.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::mem;
use std::panic::{catch_unwind, resume_unwind};
use std::ptr;
use std::rc::Rc;
use std::thread;

use libc::{getcontext, makecontext, swapcontext, ucontext_t};

const STACK_SIZE: usize = 256 << 10;

thread_local! {
    /// The coroutine running on this thread.
    static RUNNING: Cell<*const Coroutine> = const { Cell::new(ptr::null()) };
}

struct Coroutine {
    /// The coroutine's point of resumption. It is boxed, since a context contains its own address.
    context: Box<UnsafeCell<ucontext_t>>,
    /// The resumer's point of resumption.
    resumer: Box<UnsafeCell<ucontext_t>>,
    _stack: Box<[u8]>,
    job: Cell<Option<Box<dyn FnOnce()>>>,
    done: Cell<bool>,
}

/// Does each job on a coroutine of its own. They take turns until all are done.
///
/// Returns their results, and the number of turns.
pub fn take_turns<T: 'static>(jobs: &[fn() -> T]) -> Result<(Vec<T>, usize), &'static str> {
    let (coroutines, results): (Vec<_>, Vec<_>) = jobs.iter().map(|job| start(*job)).unzip();
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

/// Makes a coroutine for `job`, and a place for its result. A panic cannot leave a coroutine, so it
/// is a result, too.
fn start<T: 'static>(job: fn() -> T) -> (Coroutine, Rc<Cell<Option<thread::Result<T>>>>) {
    let result = Rc::new(Cell::new(None));
    let slot = result.clone();
    (Coroutine::new(Box::new(move || slot.set(Some(catch_unwind(job))))), result)
}

/// The progress handler: lets the next coroutine run. Outside coroutines, it does nothing.
pub extern "C" fn give_way(_: *mut c_void) -> c_int {
    // SAFETY: the running coroutine is alive, and its resumer is suspended in `resume`.
    unsafe {
        if let Some(coroutine) = RUNNING.get().as_ref() {
            swapcontext(coroutine.context.get(), coroutine.resumer.get());
        }
    }
    0
}

impl Coroutine {
    fn new(job: Box<dyn FnOnce()>) -> Self {
        // SAFETY: all-zero is a valid `ucontext_t`: integers, and pointers that may be null.
        let [context, resumer] = [(); 2].map(|()| Box::new(UnsafeCell::new(unsafe { mem::zeroed() })));
        let mut stack = vec![0; STACK_SIZE].into_boxed_slice();
        // SAFETY: the context has a stable address in its box, and its stack and resumer live as
        // long as it does.
        unsafe {
            let context: *mut ucontext_t = context.get();
            getcontext(context);
            (*context).uc_stack.ss_sp = stack.as_mut_ptr().cast();
            (*context).uc_stack.ss_size = STACK_SIZE;
            (*context).uc_link = resumer.get();
            makecontext(context, main, 0);
        }
        Self { context, resumer, _stack: stack, job: Cell::new(Some(job)), done: Cell::new(false) }
    }

    /// Resumes the coroutine until it gives way or is done.
    fn resume(&self) {
        RUNNING.set(self);
        // SAFETY: `new` made the context, or `give_way` saved it when it left the coroutine.
        unsafe { swapcontext(self.resumer.get(), self.context.get()) };
        RUNNING.set(ptr::null());
    }
}

/// The first frame of a coroutine. After its return, `uc_link` resumes the resumer.
extern "C" fn main() {
    // SAFETY: `resume` has just set `RUNNING` to the coroutine that begins here.
    let coroutine = unsafe { &*RUNNING.get() };
    if let Some(job) = coroutine.job.take() {
        job();
    }
    coroutine.done.set(true);
}
