"""Operations of a Rust library, awaited in asyncio.

Usage: `tasks.py CASE THE_GUEST_LIBRARY`. The guest library is that of the C programs; `c/guest.h`
describes its functions. Each case is a process of its own, and prints `done`.
"""

import asyncio
import atexit
import ctypes
import itertools
import sys
import threading
import time

case, path = sys.argv[1:]
guest = ctypes.CDLL(path)
VALUE, ERROR, PANIC, NEVER = range(4)
ON_WORKERS, LATER = 1, 2
DONE, FAILED, PANICKED, CANCELLED = 1, 2, 3, 4

Completion = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int)
guest.guest_start.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint, Completion, ctypes.c_size_t]
guest.guest_start.restype = ctypes.c_void_p
guest.guest_task_value.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
for name in ["wait", "free"]:
    getattr(guest, "upcall_task_" + name).argtypes = [ctypes.c_void_p, ctypes.c_int]
for name in ["cancel", "status", "fd"]:
    getattr(guest, "upcall_task_" + name).argtypes = [ctypes.c_void_p]


class RustError(Exception):
    """A task's end without a value."""


def last_message():
    message = ctypes.create_string_buffer(300)
    guest.upcall_last_message(message, len(message))
    return message.value.decode()


# The futures in wait of a completion, by number. The number is the completion's data, so nothing
# in Python has to be kept alive for C.
waiting = {}
numbers = itertools.count(1)


@Completion
def complete(number, _task, _status):
    """Called by the thread that ends the operation. ctypes takes the GIL for the call."""
    loop, future = waiting.pop(number)
    try:
        loop.call_soon_threadsafe(lambda: future.done() or future.set_result(None))
    except RuntimeError:
        pass  # the loop is closed, and nobody waits any more


def result(task):
    value = ctypes.c_int()
    if guest.guest_task_value(task, value) != 0:
        raise RustError(last_message())
    return value.value


async def call(operation, milliseconds=0, options=0):
    """Awaits an operation. If this is cancelled, the operation is, too."""
    loop = asyncio.get_running_loop()
    number, ended = next(numbers), loop.create_future()
    waiting[number] = loop, ended
    task = guest.guest_start(operation, milliseconds, options, complete, number)
    if not task:
        del waiting[number]
        raise RustError(last_message())
    try:
        await ended
        return result(task)
    finally:
        guest.upcall_task_free(task, 1)


async def raises(kind, text, awaitable):
    try:
        await awaitable
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError("no " + kind.__name__)


async def use_all():
    for options in [0, ON_WORKERS, LATER, ON_WORKERS | LATER]:
        assert await call(VALUE, 0, options) == 7
        assert await call(VALUE, 3, options) == 7
        await raises(RustError, "no such name", call(ERROR, 1, options))
        await raises(RustError, "out of names", call(PANIC, 1, options))
    assert await asyncio.gather(*(call(VALUE, n % 10) for n in range(300))) == [7] * 300


def awaited():
    asyncio.run(use_all())
    assert not waiting


def wait_for_drops():
    for _ in range(10000):
        if not guest.guest_operations_alive() and not waiting:
            return
        time.sleep(0.001)
    raise AssertionError("operations are alive")


def cancelled():
    async def run():
        for options in [0, ON_WORKERS]:

            async def limited():
                async with asyncio.timeout(0.02):
                    await call(NEVER, 0, options)

            await raises(TimeoutError, "", limited())
            many = [asyncio.create_task(call(NEVER if n % 2 else VALUE, n % 5, options)) for n in range(200)]
            await asyncio.sleep(0.003)
            for task in many:
                task.cancel()
            ends = await asyncio.gather(*many, return_exceptions=True)
            assert all(end == 7 or isinstance(end, asyncio.CancelledError) for end in ends)

    asyncio.run(run())
    wait_for_drops()


def by_descriptor():
    """Without a completion: the loop watches a descriptor of the task."""

    async def run():
        task = guest.guest_start(VALUE, 10, 0, Completion(), 0)
        ended = asyncio.Event()
        loop, fd = asyncio.get_running_loop(), guest.upcall_task_fd(task)
        loop.add_reader(fd, ended.set)
        await ended.wait()
        loop.remove_reader(fd)
        assert guest.upcall_task_status(task) == DONE and result(task) == 7
        guest.upcall_task_free(task, 0)

    asyncio.run(run())


def on_threads():
    """Each thread has a loop of its own. Others continue while one waits without a loop."""
    threads = [threading.Thread(target=awaited_here) for _ in range(4)]
    for thread in threads:
        thread.start()
    task = guest.guest_start(VALUE, 50, 0, Completion(), 0)
    assert guest.upcall_task_wait(task, -1) == DONE
    guest.upcall_task_free(task, 0)
    for thread in threads:
        thread.join()
    assert sorted(oks) == [1] * 4


oks = []


def awaited_here():
    asyncio.run(use_all())
    oks.append(1)


def loop_ends_first():
    """Completions come when their loop is closed."""

    async def run():
        for n in range(100):
            asyncio.create_task(call(VALUE, n % 7))
        await asyncio.sleep(0.003)

    asyncio.run(run())
    wait_for_drops()


def exits_at_once():
    """Completions come while the interpreter ends, and after."""
    for n in range(400):
        guest.guest_start(VALUE, n % 60, ON_WORKERS * (n % 2), quiet, 0)


@Completion
def quiet(_data, task, _status):
    guest.upcall_task_free(task, 0)


def exits_after_shutdown():
    """The library's threads are ended before the interpreter."""
    exits_at_once()
    atexit.register(shut_down)


def shut_down():
    assert guest.upcall_shutdown(20) == 0, last_message()


globals()[case]()
print("done", flush=True)
