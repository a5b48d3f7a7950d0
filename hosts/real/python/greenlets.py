"""Greenlets suspended inside Rust: Python calls Rust, and Rust calls Python.

greenlet copies their parts of the one stack away and back.

Usage: greenlets.py THE_GUEST_LIBRARY. The result of each upcall and the panic at each downcall are
known beforehand; see hosts/c/tasks.h.
"""

import ctypes
import os
import random
import sys
import threading
import traceback

from greenlet import getcurrent, greenlet

LEVELS, SEEDS = 3, 100
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
guest = ctypes.CDLL(sys.argv[1])
guest.guest_channel_new.restype = ctypes.c_void_p
guest.guest_spawn.restype = ctypes.c_void_p
guest.guest_join.argtypes = [ctypes.c_void_p]


def check(condition, *what):
    """Ends the process after a failed check: the next callback would lose an exception."""
    if not condition:
        traceback.print_stack()
        print("failed:", *what, file=sys.stderr, flush=True)
        os._exit(1)


def last_panic():
    message = ctypes.create_string_buffer(200)
    return message.value if guest.upcall_last_message(message, 200) > 0 else None


def call(kind, function):
    """Calls `function` through Rust. Returns the upcall's result and a caught panic's message."""
    callback, message = Callback(lambda _: function()), ctypes.create_string_buffer(200)
    if kind == "catch":
        return guest.guest_catch(callback, None, message, 200), message.value
    return getattr(guest, "guest_" + kind)(callback, None), b""


@Callback
def fifty(_):
    return 50


class Task:
    def __init__(self, seed, number):
        self.random = random.Random(f"{seed}/{number}")
        self.number = number
        self.levels = self.random.randint(0, LEVELS)
        self.kinds = [self.random.choice(["call", "call_pooled", "call_caller", "catch"]) for _ in range(LEVELS + 1)]
        self.panics_at = self.random.randint(0, self.levels) if self.random.random() < 0.3 else -1
        self.text = b"from task %d of seed %d" % (number, seed)
        self.escaped = False
        self.greenlet = greenlet(lambda: self.at(0))

    def leave_or_wait(self):
        what = self.random.randrange(12)
        if what < 6:
            getcurrent().parent.switch()
        elif what == 6:
            check(guest.guest_join(guest.guest_spawn(fifty, None)) == 50)

    def value(self, level):
        return self.number * (LEVELS + 1) + level

    def expected(self, level):
        passed = range(level + 1, self.panics_at + 1)
        if self.panics_at < level or any(self.kinds[at] == "catch" for at in passed):
            return self.value(level), b""
        return (-2, self.text) if self.kinds[level] == "catch" else (-1, b"")

    def at(self, level):
        self.leave_or_wait()
        if level == self.panics_at:
            check(guest.guest_panic(self.text) == -1 and last_panic() == self.text)
            self.escaped |= level == 0
            self.leave_or_wait()
        if level < self.levels:
            result = call(self.kinds[level + 1], lambda: self.at(level + 1))
            check(result == self.expected(level + 1), self.text, level, result, self.expected(level + 1))
            check(result[0] != -1 or last_panic() == self.text)
            self.escaped |= level == 0 and result[0] == -1
            self.leave_or_wait()
        return self.value(level)


def run(seed):
    """Runs tasks in some order to their ends. Returns the first panic that left its greenlet."""
    order = random.Random(seed)
    tasks = [Task(seed, number) for number in range(60 if seed < 4 else 1 + seed % 8)]
    first = b""
    while tasks:
        at = [0, -1, order.randrange(len(tasks)), order.randrange(len(tasks))][seed % 4]
        task = tasks[at]
        before = task.escaped
        task.greenlet.switch()
        if task.escaped and not before:
            first = first or task.text
        if task.greenlet.dead:
            del tasks[at]
    return first


def run_seeds():
    seeds = [int(os.environ["HOST_SEED"])] if "HOST_SEED" in os.environ else range(SEEDS)
    for seed in seeds:
        if seed // 4 % 2:
            run(seed)
        else:
            # A panic leaving its greenlet is raised at the downcall around all of them.
            escaped = []
            result = call("catch", lambda: escaped.append(run(seed)) or 1)
            check(result == ((-2, escaped[0]) if escaped[0] else (1, b"")), "seed", seed, result, escaped)
        check(guest.guest_open_calls() == 0 and guest.guest_stacks_in_use() <= 32, "seed", seed)


run_seeds()
thread = threading.Thread(target=run_seeds)
thread.start()
thread.join()
print(f"{2 * SEEDS} seeds with greenlets")
