//! A host in Rust: coroutines of corosensei, and their scheduler.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::thread;

use corosensei::{Coroutine as Corosensei, CoroutineResult, Yielder};
use upcall::coroutines::{self, Coroutine, Host, Resumed};

use crate::common::sys::{event_of_coroutines, is_signalled};
use crate::common::{FIBERS, time_limit};
use crate::memory::Memory;

/// One coroutine of the host.
pub struct Task {
    code: RefCell<Option<Corosensei<(), (), (), Memory>>>,
    yielder: Cell<*const Yielder<(), ()>>,
    killed: Cell<bool>,
}

thread_local! {
    pub static RUNNING: Cell<*const Task> = const { Cell::new(ptr::null()) };
    pub static QUEUE: RefCell<VecDeque<Rc<Task>>> = const { RefCell::new(VecDeque::new()) };
    pub static SUSPENDED: RefCell<Vec<Rc<Task>>> = const { RefCell::new(Vec::new()) };
    pub static MOST: Cell<usize> = const { Cell::new(0) };
}

pub struct Corosenseis;

// SAFETY: `suspend` returns on its thread, the only one with the coroutine, and stacks stay: a
// coroutine is dropped after its end.
unsafe impl Host for Corosenseis {
    fn current(&self) -> Option<Coroutine> {
        NonNull::new(RUNNING.get().cast_mut().cast::<c_void>()).map(Coroutine::new)
    }

    fn suspend(&self, coroutine: Coroutine) -> Resumed {
        let task: *const Task = coroutine.as_ptr().cast_const().cast();
        assert_eq!(task, RUNNING.get());
        // SAFETY: `current` made the pointer from the running task, which is alive.
        let (killed, yielder) = unsafe { (&(*task).killed, (*task).yielder.get()) };
        if !killed.get() {
            SUSPENDED.with_borrow(|suspended| MOST.set(MOST.get().max(suspended.len() + 1)));
            // SAFETY: the task runs, so its yielder is alive.
            unsafe { (*yielder).suspend(()) };
        }
        if killed.get() { Resumed::ToEnd } else { Resumed::ToGoOn }
    }

    fn resume(&self, coroutine: Coroutine) {
        let ready = SUSPENDED.with_borrow_mut(|suspended| {
            let at =
                suspended.iter().position(|task| Rc::as_ptr(task).cast() == coroutine.as_ptr().cast_const());
            suspended.swap_remove(at.expect("a suspended one"))
        });
        run(ready);
    }
}

/// Adds a coroutine.
pub fn go(f: impl FnOnce() + 'static) -> Rc<Task> {
    let task =
        Rc::new(Task { code: RefCell::new(None), yielder: Cell::new(ptr::null()), killed: Cell::new(false) });
    let own = Rc::downgrade(&task);
    *task.code.borrow_mut() = Some(Corosensei::with_stack(Memory::new(256 << 10), move |yielder, ()| {
        own.upgrade().expect("it runs").yielder.set(yielder);
        f();
    }));
    QUEUE.with_borrow_mut(|queue| queue.push_back(task.clone()));
    task
}

/// Runs a coroutine until it is suspended, or ends.
pub fn run(task: Rc<Task>) {
    let before = RUNNING.replace(Rc::as_ptr(&task));
    let mut code = task.code.borrow_mut().take().expect("it does not run");
    let resumed = code.resume(());
    RUNNING.set(before);
    if let CoroutineResult::Yield(()) = resumed {
        *task.code.borrow_mut() = Some(code);
        SUSPENDED.with_borrow_mut(|suspended| suspended.push(task));
    }
}

/// Kills a suspended coroutine.
pub fn kill(task: &Rc<Task>) {
    task.killed.set(true);
    Corosenseis.resume(Coroutine::new(NonNull::from(&**task).cast()));
}

/// Runs all coroutines to their ends.
pub fn run_all() {
    let event = event_of_coroutines();
    loop {
        while let Some(task) = QUEUE.with_borrow_mut(VecDeque::pop_front) {
            run(task);
        }
        if SUSPENDED.with_borrow(Vec::is_empty) {
            return;
        }
        assert!(is_signalled(event, 10_000), "none can go on");
        coroutines::run_ready(usize::MAX);
    }
}

/// Runs `test` on a thread with the host.
pub fn hosted(name: &'static str, test: impl FnOnce() + Send + 'static) {
    let _limit = time_limit(name);
    let on_thread = move || {
        coroutines::install_on_thread(FIBERS, &Corosenseis).unwrap();
        test();
        run_all();
        assert!(coroutines::uninstall_on_thread());
    };
    thread::spawn(on_thread).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
