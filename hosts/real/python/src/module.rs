//! A Python module, made with PyO3.
//!
//! Every wait releases the GIL first. So Python's other threads continue, and so do this thread's
//! fibers.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use async_channel::{Receiver, Sender};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use upcall::{
    Interrupted, JoinHandle, LocalRuntime, StackChoice, downcall, downcall_on_fiber, enter, entry, wait,
    wait_interruptible,
};

use crate::{open_calls as open_calls_here, wait_for_worker as worker_waits};

use crate::FIBERS;

/// The stack of a fiber with Python on it, in bytes.
const STACK: usize = 1 << 20;

create_exception!(python_host, UpcallError, PyException, "A panic, or an upcall that was refused.");

/// Turns a failed upcall into Python's exception `UpcallError`, with the message of the panic.
fn raised<T>(result: Result<PyResult<T>, upcall::UpcallError>) -> PyResult<T> {
    result.unwrap_or_else(|panicked| Err(UpcallError::new_err(panicked.message().to_owned())))
}

/// The module `python_host`.
#[pymodule]
mod python_host {
    #[pymodule_export]
    use super::{
        Channel, UpcallError, call, call_on_fiber, call_pooled, catch, ended, fibers, local_begin, local_end,
        local_fd, local_run_ready, on_fiber, on_worker, open_calls, panic, panic_outside, sort,
        stacks_in_use, start, wait_for_worker,
    };
    use pyo3::prelude::*;

    /// Installs the check for Ctrl-C. It must run before the first upcall.
    #[pymodule_init]
    fn init(_: &Bound<'_, PyModule>) -> PyResult<()> {
        let installed = upcall::config().interrupted(super::interrupted).install();
        installed.map_err(|error| UpcallError::new_err(error.to_string()))
    }
}

/// Runs Python's signal handlers. Returns whether one has raised an exception, usually Ctrl-C's.
///
/// The exception stays set, for the waiting code to raise.
fn interrupted() -> bool {
    // SAFETY: this function may be called on any thread. A thread unknown to Python has no handlers
    // to run and needs no GIL.
    if unsafe { ffi::PyGILState_GetThisThreadState() }.is_null() {
        return false;
    }
    Python::attach(|py| match py.check_signals() {
        Ok(()) => false,
        Err(error) => {
            error.restore(py);
            true
        }
    })
}

/// Makes a downcall in an upcall.
#[pyfunction]
fn call(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(enter(|| downcall(|| function.call0())))
}

/// Makes a downcall in an upcall on a pooled stack.
#[pyfunction]
fn call_pooled(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(entry().stack(StackChoice::Pooled).enter(|| downcall(|| function.call0())))
}

/// Makes a downcall on the fiber's stack, where a wait suspends the fiber, in an upcall.
#[pyfunction]
fn call_on_fiber(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(enter(|| downcall_on_fiber(|| function.call0())))
}

/// Returns the result of `function`, or the message of the panic raised at its downcall.
#[pyfunction]
fn catch(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(enter(|| {
        let caught = catch_unwind(AssertUnwindSafe(|| downcall(|| function.call0())));
        caught.unwrap_or_else(|payload| {
            let message = payload.downcast::<String>().unwrap_or_else(|other| resume_unwind(other));
            Ok(message.into_pyobject(function.py())?.into_any())
        })
    }))
}

/// Panics in an upcall.
#[pyfunction]
fn panic(message: String) -> PyResult<()> {
    raised(enter(|| panic!("{message}")))
}

/// Panics outside any upcall. PyO3 handles this panic.
#[pyfunction]
fn panic_outside(message: String) {
    panic!("{message}")
}

/// The argument passed through `qsort_r` to `compare`.
struct Comparison<'py> {
    function: Bound<'py, PyAny>,
    failed: Option<PyErr>,
}

extern "C" fn compare(a: *const c_void, b: *const c_void, comparison: *mut c_void) -> c_int {
    enter(|| {
        // SAFETY: qsort_r passes elements of an array of `c_int`, and the pointer given by `sort`.
        // One comparison runs at a time.
        let (a, b, comparison) = unsafe {
            (a.cast::<c_int>().read(), b.cast::<c_int>().read(), &mut *comparison.cast::<Comparison<'_>>())
        };
        let compared = downcall(|| comparison.function.call1((a, b))?.extract());
        compared.unwrap_or_else(|error| {
            comparison.failed.get_or_insert(error);
            0
        })
    })
    .unwrap_or(0)
}

/// Sorts by C's `qsort_r`. Its comparisons are upcalls that call `function`.
#[pyfunction]
fn sort(mut numbers: Vec<c_int>, function: Bound<'_, PyAny>) -> PyResult<Vec<c_int>> {
    raised(enter(|| {
        // On the heap: greenlets copy parts of the stack away, but not the heap.
        let mut comparison = Box::new(Comparison { function, failed: None });
        let (array, size) = (numbers.as_mut_ptr().cast(), size_of::<c_int>());
        // SAFETY: the array has `numbers.len()` elements, and `compare` takes elements of their
        // type and a `Comparison`.
        downcall(|| unsafe {
            libc::qsort_r(array, numbers.len(), size, Some(compare), (&raw mut *comparison).cast())
        });
        comparison.failed.map_or(Ok(numbers), Err)
    }))
}

/// Waits for a worker's fiber. Returns `number`.
#[pyfunction]
fn wait_for_worker(py: Python<'_>, number: c_int) -> PyResult<c_int> {
    raised(enter(|| Ok(py.detach(|| worker_waits(number)))))
}

/// A channel of numbers.
#[pyclass(frozen)]
struct Channel(Sender<c_int>, Receiver<c_int>);

#[pymethods]
impl Channel {
    #[new]
    fn new() -> Self {
        let (sender, receiver) = async_channel::unbounded();
        Self(sender, receiver)
    }

    fn send(&self, py: Python<'_>, number: c_int) -> PyResult<()> {
        let send = || {
            py.detach(|| wait(self.0.send(number))).expect("the channel is open");
            Ok(())
        };
        raised(enter(send))
    }

    fn receive(&self, py: Python<'_>) -> PyResult<c_int> {
        raised(enter(|| Ok(py.detach(|| wait(self.1.recv())).expect("the channel is open"))))
    }

    /// Receives a number like `receive`. Ctrl-C ends the wait.
    fn receive_or_interrupt(&self, py: Python<'_>) -> PyResult<c_int> {
        raised(enter(|| match py.detach(|| wait_interruptible(self.1.recv())) {
            Ok(number) => Ok(number.expect("the channel is open")),
            Err(Interrupted) => Err(PyErr::fetch(py)),
        }))
    }
}

/// Waits for a fiber of this thread that calls `function` on the system stack.
///
/// A wait in `function` blocks the thread. So the last fiber to begin is the first to end, as
/// Python requires for its frames.
#[pyfunction]
fn on_fiber(py: Python<'_>, function: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let call = move || {
        worker_waits(());
        Python::attach(|py| downcall(|| function.call0(py)))
    };
    raised(enter(|| py.detach(|| FIBERS.spawn_local(call).join()).expect("the thread has a runtime")))
}

/// Waits for a worker's fiber that calls `function` on the system stack.
#[pyfunction]
fn on_worker(py: Python<'_>, function: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let call = move || Python::attach(|py| downcall(|| function.call0(py)));
    raised(enter(|| py.detach(|| FIBERS.spawn(call).join()).expect("Python does not panic")))
}

/// Calls the functions in fibers of this thread, each on its own fiber's stack.
///
/// A wait suspends its fiber, so the fibers take turns in any order.
#[pyfunction]
fn fibers(py: Python<'_>, functions: Vec<Py<PyAny>>) -> PyResult<Vec<Py<PyAny>>> {
    raised(enter(|| {
        let runtime = FIBERS.local_runtime().expect("the thread has none");
        let fibers: Vec<_> =
            functions.into_iter().map(|function| in_python(&runtime, py, function)).collect();
        let joined = |fiber: JoinHandle<_>| fiber.join().expect("Python does not panic");
        let results: Vec<_> = py.detach(|| fibers.into_iter().map(joined).collect());
        results.into_iter().collect()
    }))
}

/// Begins a call of `function` in a fiber, and aborts the fiber at its wait. Returns whether it
/// waited.
#[pyfunction]
fn ended(py: Python<'_>, function: Py<PyAny>) -> PyResult<bool> {
    raised(enter(|| {
        let runtime = FIBERS.local_runtime().expect("the thread has none");
        let (fiber, next) = (in_python(&runtime, py, function), runtime.spawn_local(|| ()));
        let joined = py.detach(|| {
            next.join().expect("it does nothing");
            fiber.abort();
            fiber.join()
        });
        Ok(joined.is_err_and(|error| error.is_aborted()))
    }))
}

/// Adds a fiber that calls `function`.
///
/// Python keeps its frames in a thread state. So the fiber has a thread state of its own.
fn in_python(
    runtime: &LocalRuntime,
    _attached: Python<'_>,
    function: Py<PyAny>,
) -> JoinHandle<PyResult<Py<PyAny>>> {
    // SAFETY: this thread is attached to Python, as `_attached` shows.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    let call = move || {
        // SAFETY: the code that waits for this fiber has the same interpreter. The thread is
        // detached here, and no other thread runs its fibers. Python code that detaches attaches
        // the same state again, and nothing unwinds out of the call.
        downcall_on_fiber(|| unsafe {
            let state = ffi::PyThreadState_New(interpreter);
            ffi::PyEval_RestoreThread(state);
            let result = function.call0(Python::assume_attached());
            ffi::PyThreadState_Clear(state);
            ffi::PyEval_SaveThread();
            ffi::PyThreadState_Delete(state);
            result
        })
    };
    runtime.spawn_local_with(FIBERS.builder().stack_size(STACK), call)
}

/// Starts a fiber of this thread. It waits for a worker's fiber, and then calls `function`.
#[pyfunction]
fn start(function: Py<PyAny>) -> PyResult<()> {
    let call = move || {
        worker_waits(());
        Python::attach(|py| downcall(|| function.call0(py))).expect("the function raises nothing");
    };
    let start = || {
        drop(FIBERS.spawn_local(call));
        Ok(())
    };
    raised(enter(start))
}

/// Begins this thread's runtime. With the functions below, asyncio's loop drives the runtime's
/// fibers.
///
/// The module exports them without their C names.
#[pyfunction]
fn local_begin() -> c_int {
    upcall::c::local_begin()
}

#[pyfunction]
fn local_fd() -> c_int {
    upcall::c::local_fd()
}

#[pyfunction]
fn local_run_ready(py: Python<'_>) -> i64 {
    py.detach(|| upcall::c::local_run_ready(usize::MAX))
}

#[pyfunction]
fn local_end() -> c_int {
    upcall::c::local_end()
}

#[pyfunction]
fn open_calls() -> usize {
    open_calls_here()
}

#[pyfunction]
fn stacks_in_use() -> usize {
    upcall::snapshot().pool.in_use
}
