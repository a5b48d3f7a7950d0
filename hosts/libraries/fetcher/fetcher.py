"""A library written with tokio, used from Python.

Usage: `fetcher.py CASE LIBRARY GIL`. GIL is `released` or `held` during calls.
"""

import ctypes
import os
import signal
import sys
import threading
import time

case, path, gil = sys.argv[1:]
# CDLL releases the GIL in every call. PyDLL does not, so blocking code must release it.
library = (ctypes.CDLL if gil == "released" else ctypes.PyDLL)(path)
Done = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
library.fetcher_start.argtypes = [ctypes.c_uint, ctypes.c_int, Done, ctypes.c_void_p]
library.fetcher_each.argtypes = [ctypes.c_int, Done, ctypes.c_void_p]
assert library.fetcher_host_is_python() == 0

results = []
# Called on threads of the library's runtime. These take the GIL for the call.
done = Done(lambda user, result: results.append(result))
done_waits = Done(lambda user, result: results.append(library.fetcher_ask(result)))


def use_all():
    assert library.fetcher_nap(1) == 0
    assert library.fetcher_ask(1) == 2
    assert library.fetcher_sum(10) == 55
    assert library.fetcher_echo(7) == 7
    assert library.fetcher_limited(2) == 1
    results.clear()
    assert library.fetcher_start(1, 5, done, None) == 0
    while not results:
        assert library.fetcher_nap(1) == 0
    assert library.fetcher_each(8, done_waits, None) == 0
    assert sorted(results) == [1, 2, 3, 4, 5, 5, 6, 7, 8], results


def on_main():
    use_all()


def beside_others():
    """Another Python thread continues while this one waits."""
    turns = 0
    ends = False

    def count():
        nonlocal turns
        while not ends:
            turns += 1
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    before = turns
    assert library.fetcher_nap(200) == 0
    assert turns - before > 10, turns - before
    use_all()
    ends = True
    other.join()


def on_threads():
    failed = []

    def ask():
        try:
            for n in range(100):
                assert library.fetcher_ask(n) == n + 1
                assert library.fetcher_sum(3) == 6
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def interrupted():
    """Ctrl-C, received by this thread or by another."""
    # A shell makes its background jobs ignore SIGINT, and Python then does the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    start = time.monotonic()
    try:
        print(library.fetcher_limited(60_000), "after", time.monotonic() - start, file=sys.stderr)
        sys.exit(1)
    # PyDLL checks for a set exception. CDLL reports it as the cause of a SystemError.
    except (KeyboardInterrupt, SystemError) as error:
        assert isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)
    assert time.monotonic() - start < 10
    use_all()


def at_exit():
    import atexit

    atexit.register(use_all)
    use_all()


def forked():
    use_all()
    child = os.fork()
    if child == 0:
        assert library.fetcher_nap(1) == 0
        assert library.fetcher_sum(10) == 55
        assert library.fetcher_echo(7) == 7
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    use_all()


globals()[case]()
print("done")
