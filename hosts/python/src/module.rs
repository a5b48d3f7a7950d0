//! A Python module, made with PyO3. Whatever waits has released the GIL: other threads of Python go on, and so do this thread's fibers.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use async_channel::{Receiver, Sender};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use upcall::{
    JoinHandle, LocalRuntime, StackChoice, downcall, downcall_on_fiber, enter, entry, spawn, spawn_local,
    wait,
};

use crate::{open_calls as open_calls_here, wait_for_worker as worker_waits};

/// For Python on a fiber's stack.
const STACK: usize = 1 << 20;

create_exception!(python_host, Panicked, PyException, "A panic, or an upcall that was refused.");

/// What Python gets: an exception of its own, or the message of a panic.
fn raised<T>(result: Result<PyResult<T>, upcall::Panicked>) -> PyResult<T> {
    result.unwrap_or_else(|panicked| Err(Panicked::new_err(panicked.message().to_owned())))
}

/// The module `python_host`.
#[pymodule]
mod python_host {
    #[pymodule_export]
    use super::{
        Channel, Panicked, call, call_on_fiber, call_pooled, catch, ended, fibers, local_begin, local_end,
        local_fd, local_run_ready, on_fiber, on_worker, open_calls, panic, panic_outside, sort,
        stacks_in_use, start, wait_for_worker,
    };
}

/// An upcall that makes a downcall.
#[pyfunction]
fn call(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(enter(|| downcall(|| function.call0())))
}

/// The same from a pooled stack.
#[pyfunction]
fn call_pooled(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(entry().stack(StackChoice::Pooled).enter(|| downcall(|| function.call0())))
}

/// The same on the fiber's stack, where a wait suspends the fiber.
#[pyfunction]
fn call_on_fiber(function: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    raised(enter(|| downcall_on_fiber(|| function.call0())))
}

/// What `function` returns, or the message of the panic that its downcall raises.
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

/// Panics outside of one, which is PyO3's affair.
#[pyfunction]
fn panic_outside(message: String) {
    panic!("{message}")
}

/// What `qsort_r` passes to `compare`.
struct Comparison<'py> {
    function: Bound<'py, PyAny>,
    failed: Option<PyErr>,
}

extern "C" fn compare(a: *const c_void, b: *const c_void, comparison: *mut c_void) -> c_int {
    enter(|| {
        // SAFETY: qsort_r passes elements of an array of `c_int`, and what `sort` gave it, in one comparison at a time.
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

/// Sorts by C's `qsort_r`, whose comparisons are upcalls that call `function`.
#[pyfunction]
fn sort(mut numbers: Vec<c_int>, function: Bound<'_, PyAny>) -> PyResult<Vec<c_int>> {
    raised(enter(|| {
        // On the heap: greenlets that copy the stack leave it where it is.
        let mut comparison = Box::new(Comparison { function, failed: None });
        let (array, size) = (numbers.as_mut_ptr().cast(), size_of::<c_int>());
        // SAFETY: the array has that many elements, and `compare` takes these and a `Comparison`.
        downcall(|| unsafe {
            libc::qsort_r(array, numbers.len(), size, Some(compare), (&raw mut *comparison).cast())
        });
        comparison.failed.map_or(Ok(numbers), Err)
    }))
}

/// Waits for a worker's fiber.
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
}

/// Waits for a fiber of this thread's that calls `function` on the system stack. A wait in there blocks the thread, so the last to begin is
/// the first to end, which is how Python keeps its frames.
#[pyfunction]
fn on_fiber(py: Python<'_>, function: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let call = move || {
        worker_waits(());
        Python::attach(|py| downcall(|| function.call0(py)))
    };
    raised(enter(|| py.detach(|| spawn_local(call).join()).expect("the thread has a runtime")))
}

/// The same with a fiber of a worker.
#[pyfunction]
fn on_worker(py: Python<'_>, function: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let call = move || Python::attach(|py| downcall(|| function.call0(py)));
    raised(enter(|| py.detach(|| spawn(call).join()).expect("Python does not panic")))
}

/// Calls the functions in fibers of this thread, each on its fiber's stack, where whatever waits suspends it: they take turns in any order.
#[pyfunction]
fn fibers(py: Python<'_>, functions: Vec<Py<PyAny>>) -> PyResult<Vec<Py<PyAny>>> {
    raised(enter(|| {
        let runtime = LocalRuntime::new().expect("the thread has none");
        let fibers: Vec<_> =
            functions.into_iter().map(|function| in_python(&runtime, py, function)).collect();
        let joined = |fiber: JoinHandle<_>| fiber.join().expect("Python does not panic");
        let results: Vec<_> = py.detach(|| fibers.into_iter().map(joined).collect());
        results.into_iter().collect()
    }))
}

/// Begins to call `function` in a fiber, and ends the fiber where it waits. Returns whether it waited.
#[pyfunction]
fn ended(py: Python<'_>, function: Py<PyAny>) -> PyResult<bool> {
    raised(enter(|| {
        let runtime = LocalRuntime::new().expect("the thread has none");
        let (fiber, next) = (in_python(&runtime, py, function), runtime.spawn_local(|| ()));
        let joined = py.detach(|| {
            next.join().expect("it does nothing");
            fiber.abort();
            fiber.join()
        });
        Ok(joined.is_err_and(|error| error.is_aborted()))
    }))
}

/// Adds a fiber that calls `function`. Python keeps its frames in a thread state, which therefore is the fiber's own.
fn in_python(
    runtime: &LocalRuntime,
    _attached: Python<'_>,
    function: Py<PyAny>,
) -> JoinHandle<PyResult<Py<PyAny>>> {
    // SAFETY: this thread is attached.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    let call = move || {
        // SAFETY: the interpreter is that of who waits for this fiber. The thread is detached here: no other runs its fibers. What detaches in Python
        // attaches the same state again, and nothing unwinds out of the call.
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
    runtime.spawn_local_with(upcall::Fiber::builder().stack_size(STACK), call)
}

/// Starts a fiber of this thread's, which waits for a worker's, and then calls `function`.
#[pyfunction]
fn start(function: Py<PyAny>) -> PyResult<()> {
    let call = move || {
        worker_waits(());
        Python::attach(|py| downcall(|| function.call0(py))).expect("the function raises nothing");
    };
    let start = || {
        drop(spawn_local(call));
        Ok(())
    };
    raised(enter(start))
}

/// What an asyncio loop needs: `upcall_local_begin` and the others.
#[pyfunction]
fn local_begin() -> c_int {
    upcall::upcall_local_begin()
}

#[pyfunction]
fn local_fd() -> c_int {
    upcall::upcall_local_fd()
}

#[pyfunction]
fn local_run_ready(py: Python<'_>) -> i64 {
    py.detach(|| upcall::upcall_local_run_ready(usize::MAX))
}

#[pyfunction]
fn local_end() -> c_int {
    upcall::upcall_local_end()
}

#[pyfunction]
fn open_calls() -> usize {
    open_calls_here()
}

#[pyfunction]
fn stacks_in_use() -> usize {
    upcall::snapshot().pool.in_use
}
