"""Usage: `cases.py BINDING CASE LIBRARY`. Runs a case, and prints `done` at its end.

A failing check ends the process: a callback would lose an exception.
"""

import asyncio
import gc
import multiprocessing
import os
import random
import signal
import sys
import threading
import traceback

from greenlet import getcurrent, greenlet

from bindings import BINDINGS

THREADS = 8
rust = BINDINGS[sys.argv[1]](sys.argv[3])


def check(condition, *expected):
    if not condition:
        traceback.print_stack()
        print("expected:", *expected, file=sys.stderr, flush=True)
        os._exit(1)


def check_nothing_is_open():
    check(rust.open_calls() == 0, "no open calls, not", rust.open_calls())
    check(rust.stacks_in_use() <= 32, "no stacks in use but spares, not", rust.stacks_in_use())


def panics_with(message):
    """Checks that a panic is an exception here. It does not leave the current callback."""
    try:
        rust.panic(message)
    except rust.UpcallError as panicked:
        return str(panicked) == message


def leave():
    getcurrent().parent.switch()


def task(number, levels, panics):
    """A greenlet that goes down callbacks, and is suspended at each, on its way down and up.

    If it panics at the bottom, the downcall there raises the panic.
    """

    def bottom():
        leave()
        if panics:
            check(panics_with(f"task {number}"), "its own panic")
            leave()
        return number

    def at(level):
        call = [rust.call, rust.call_pooled][level % 2]
        result = call(lambda: at(level + 1)) if level < levels else rust.catch(bottom)
        leave()
        return -1000 - number if result == f"task {number}" else result

    def run():
        result = at(1)
        expected = -1000 - number if panics else number
        check(result == expected, expected, "not", result)

    return greenlet(run)


def tasks(count, levels=3, panics=True):
    return [task(number, 1 + number % levels, panics and number % 3 == 0) for number in range(count)]


def run(left, choose):
    for one in left:
        one.switch()
    while left:
        one = choose(left)
        one.switch()
        if one.dead:
            left.remove(one)


def a_then_b():
    run(tasks(2, 1, False), lambda left: left[0])


def b_then_a():
    run(tasks(2, 1, False), lambda left: left[-1])


def at_random():
    for seed in range(10):
        choose = random.Random(seed).choice
        run(tasks(10 if seed else 100), choose)
        check_nothing_is_open()
        result = rust.catch(lambda: run(tasks(10), choose) or seed)
        check(result == seed, "no panic to leave its greenlet, not", result)


def waits():
    check(rust.wait_for_worker(5) == 5, 5)
    check(rust.call(lambda: rust.wait_for_worker(6)) == 6, 6)
    # One greenlet is suspended in a callback while the Rust code of the other waits.
    def waits_twice(of):
        check(rust.wait_for_worker(of) == of, of)
        leave()
        return rust.wait_for_worker(of + 1)

    results = []
    greenlets = [greenlet(lambda of=of: results.append(rust.call(lambda: waits_twice(of)))) for of in (10, 20)]
    for one in greenlets * 2:
        one.switch()
    check(results == [11, 21], "11 and 21, not", results)


def panics():
    check(panics_with("outside"), "a panic to be an exception")

    def inside():
        check(panics_with("inside"), "a panic in a callback to be an exception")
        return 1

    check(rust.catch(inside) == "inside", "the panic to go on at the downcall")
    try:
        rust.call(inside)
        check(False, "an exception")
    except rust.UpcallError as panicked:
        check(str(panicked) == "inside", "the call to fail with the panic")

    def passes_qsort():
        try:
            rust.sort([2, 1], lambda a, b: inside())
        except rust.UpcallError:
            return 1

    check(rust.catch(passes_qsort) == "inside", "the panic to pass qsort")
    check(rust.call(lambda: 5) == 5, "calls to be served afterwards")


def panic_outside():
    """A panic outside upcalls: PyO3's PanicException, and a panic again in Rust around Python."""
    try:
        rust.panic_outside("outside")
        check(False, "an exception")
    except BaseException as raised:
        check(type(raised).__name__ == "PanicException" and str(raised) == "outside", "PyO3's, not", raised)
    for call in [rust.call, rust.call_pooled]:
        try:
            call(lambda: rust.panic_outside("outside"))
            check(False, "an exception")
        except rust.UpcallError as panicked:
            check(str(panicked) == "outside", "the message, not", panicked)
    check(rust.catch(lambda: rust.panic_outside("outside")) == "outside", "the panic to be caught in Rust")


def exceptions():
    """Exceptions leaving a callback.

    PyO3 passes them on. cffi prints them and returns 0. ctypes prints them and returns any number.
    """

    def raises():
        raise KeyError("from the callback")

    if sys.argv[1] == "ctypes":
        ignored = [rust.library.host_call(rust.callback(raises), None), rust.sort([2, 1], lambda a, b: raises())]
        check(len(ignored) == 2 and rust.call(lambda: 5) == 5, "calls to be served afterwards")
        return
    if sys.argv[1] != "pyo3":
        check(rust.call(raises) == 0 and rust.sort([2, 1], lambda a, b: raises()) == [2, 1], "0")
        return
    for call in [rust.call, rust.call_pooled, rust.catch, lambda f: rust.sort([2, 1], lambda a, b: f())]:
        try:
            call(lambda: rust.call(raises))
            check(False, "an exception")
        except KeyError as error:
            check(error.args == ("from the callback",), "the exception as it was raised")


def sorts():
    def waits(a, b):
        a, b = rust.wait_for_worker(a), rust.wait_for_worker(b)
        return (a > b) - (a < b)

    check(rust.sort([3, 1, 2], waits) == [1, 2, 3], "numbers to be sorted by callbacks that wait")
    left, results = [], {}

    def sort(start):
        def compare(a, b):
            leave()
            return waits(a, b)

        results[start] = rust.sort(list(range(start + 9, start - 1, -1)), compare)

    left = [greenlet(lambda start=start: sort(start)) for start in range(20)]
    run(left, random.Random(1).choice)
    for start, result in results.items():
        check(result == list(range(start, start + 10)), "the numbers from", start, "not", result)


def generators():
    def numbers(start):
        while True:
            yield rust.call(lambda: start)
            start += 1

    a, b = numbers(0), numbers(100)
    for turn in range(20):
        sum = rust.call(lambda: next(a) + rust.call(lambda: next(b)))
        check(sum == 100 + 2 * turn, "sum", turn, "not", sum)

    def left_inside():
        yield rust.call(lambda: leave() or 1)
        yield rust.call(lambda: leave() or 2)

    one, results = left_inside(), []
    for _ in range(2):
        goes_on = greenlet(lambda: results.append(rust.call(lambda: next(one))))
        goes_on.switch()
        goes_on.switch()
    check(results == [1, 2], "a generator to go from greenlet to greenlet, not", results)


def deep():
    def down(levels):
        return rust.call(lambda: down(levels - 1)) + 1 if levels else 0

    sys.setrecursionlimit(10000)
    check(down(500) == 500, "500 levels")
    results = []
    greenlet(lambda: results.append(down(500))).switch()
    check(results == [500], "500 levels in a greenlet")


def collected():
    """A greenlet suspended in a callback is collected. greenlet raises GreenletExit in it."""
    seen = []

    def left_there():
        try:
            leave()
        finally:
            seen.append(rust.wait_for_worker(1))
        return 1

    one = greenlet(lambda: rust.call(left_there))
    one.switch()
    del one
    gc.collect()
    check(seen == [1], "`finally` to be run, and to wait")


def threads():
    """Many threads call at the same time. All of them wait in Rust before the first continues."""
    there, go, results = rust.Channel(), [rust.Channel() for _ in range(THREADS)], [0] * THREADS

    def work(number):
        def inside():
            there.send(number)
            return go[number].receive() + rust.call(lambda: rust.wait_for_worker(number))

        for _ in range(20):
            results[number] += rust.call(inside)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for one in workers:
        one.start()
    for _ in range(20):
        check(sorted(there.receive() for _ in workers) == list(range(THREADS)), "all threads to be in Rust")
        for number, channel in enumerate(go):
            channel.send(10 * number)
    for one in workers:
        one.join()
    check(results == [20 * 11 * number for number in range(THREADS)], "each thread's numbers, not", results)


def gil_released():
    """Another Python thread can only send the awaited number if the wait has released the GIL."""
    to, back = rust.Channel(), rust.Channel()

    def echo():
        for _ in range(100):
            back.send(rust.call(to.receive) + 1)

    thread = threading.Thread(target=echo)
    thread.start()
    for number in range(100):
        to.send(number)
        check(rust.call(lambda: back.receive()) == number + 1, number + 1)
    thread.join()


def interrupted():
    """Ctrl-C ends a wait by Python's own exception. A handler without an exception does not."""
    if sys.argv[1] != "pyo3":
        return
    channel = rust.Channel()
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(channel.send(7)))
    # A shell makes its background jobs ignore SIGINT, and Python then does the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
    check(channel.receive_or_interrupt() == 7 and seen, "the handler to send it")
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        channel.receive_or_interrupt()
        check(False, "KeyboardInterrupt")
    except KeyboardInterrupt:
        pass
    channel.send(8)
    check(channel.receive_or_interrupt() == 8, 8)


def event_loop():
    """Fibers of Rust in asyncio's loop, beside its own tasks."""
    turns = []

    async def beside(done):
        while not done.is_set():
            turns.append(1)
            await asyncio.sleep(0)

    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        check(rust.local_begin() == 0, "a runtime")
        loop.add_reader(rust.local_fd(), rust.local_run_ready)
        task = loop.create_task(beside(done))

        async def fiber(number):
            future = loop.create_future()
            rust.start(lambda: future.set_result(rust.call(lambda: number)))
            return await future

        results = await asyncio.gather(*[fiber(number) for number in range(50)])
        done.set()
        await task
        loop.remove_reader(rust.local_fd())
        check(rust.local_end() == 0, "the runtime to end")
        check(results == list(range(50)) and turns, "each number, not", results)

    asyncio.run(asyncio.wait_for(main(), 20))


def forks():
    """Suspended greenlets continue in parent and child. The child's Rust waits for new workers."""
    left = tasks(10)
    for one in left:
        one.switch()
    check(rust.wait_for_worker(1) == 1, "the parent to wait")
    child = os.fork()
    while left:
        left[0].switch()
        if left[0].dead:
            del left[0]
    check(rust.call(lambda: rust.wait_for_worker(2)) == 2, "parent and child to wait")
    check_nothing_is_open()
    if child == 0:
        os._exit(7)
    check(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7, "the child to get there")


def doubled(number):
    return rust.call(lambda: rust.wait_for_worker(2 * number))


def pool_of_processes():
    check(doubled(1) == 2, "the parent to wait")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        check(pool.map(doubled, range(20)) == [2 * number for number in range(20)], "the children to wait")


def nested():
    """Python waits for a fiber of this thread or a worker; the fiber calls Python, which waits."""
    check(rust.local_begin() == 0, "a runtime")
    waits = lambda: rust.call(lambda: rust.wait_for_worker(5))
    check(rust.on_fiber(waits) == 5 and rust.on_worker(waits) == 5, 5)
    check(rust.on_fiber(lambda: rust.on_worker(lambda: rust.on_worker(waits)) + 1) == 6, 6)
    check(rust.on_fiber(lambda: rust.on_fiber(lambda: rust.on_fiber(waits))) == 5, "fibers in fibers")
    try:
        rust.on_worker(lambda: {}["absent"])
        check(False, "an exception")
    except KeyError:
        pass
    check(rust.local_end() == 0, "the runtime to end")


def fibers():
    """Fibers of one thread, all inside Python, take turns in any order."""
    orders = [[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]]
    orders += [random.Random(seed).sample(range(100), 300, counts=[3] * 100) for seed in range(3)]
    for order in orders:
        count = max(order) + 1
        go, gone = [rust.Channel() for _ in range(count)], rust.Channel()

        def takes_turns(number):
            def numbers():
                while True:
                    yield go[number].receive()
                    gone.send(number)

            one = numbers()
            total = next(one)
            total += rust.call_on_fiber(lambda: next(one))
            try:
                raise KeyError(next(one))
            except KeyError as error:
                total += error.args[0]
            gone.send(number)
            return total

        def drives():
            for number in order:
                go[number].send(number)
                check(gone.receive() == number, number, "to take its turn")

        results = rust.fibers([lambda number=number: takes_turns(number) for number in range(count)] + [drives])
        check(results[:-1] == [3 * number for number in range(count)], "each sum, not", results)


def ended():
    """Aborts a fiber waiting in Python: an exception there. Python may see it, but not stop it."""
    seen = []

    def waits():
        for _ in range(2):
            try:
                rust.call_on_fiber(lambda: rust.Channel().receive())
            except rust.UpcallError as panicked:
                seen.append(str(panicked))

    check(rust.ended(waits), "the fiber to be ended where it waits")
    check(len(seen) == 2, "both waits to fail, not", seen)


globals()[sys.argv[2]]()
check_nothing_is_open()
print("done")
