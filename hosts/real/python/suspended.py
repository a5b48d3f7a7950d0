"""Usage: `suspended.py LOOP CASE FOLDER`. Runs a case of waits that suspend greenlets.

LOOP is `gevent`, or `own` for plain greenlets and a loop of `poll`. FOLDER has both libraries. Each
has its own upcall, and hooks of its own. A case prints its figures, and `done` at its end.
"""

import ctypes
import functools
import os
import random
import signal
import sys
import threading
import time
import traceback
from statistics import median

import gevent
import gevent.os
from greenlet import GreenletExit, getcurrent, greenlet

import coroutines

loop, case, folder = sys.argv[1:]
MANY = 1000
host = coroutines.Library(folder + "/python_host.so")
pages = coroutines.Library(folder + "/libpages.so")
pointer, size = ctypes.c_void_p, ctypes.c_size_t
Callback = ctypes.CFUNCTYPE(ctypes.c_int, pointer)
host.host_channel_new.restype = pointer
host.host_frame.restype = size
host.host_send.argtypes = [pointer, ctypes.c_int]
host.host_receive.argtypes = [pointer]
host.host_last_message.argtypes = [pointer, size]
callback = coroutines.callback(Callback, -1)


def check(condition, *what):
    """Ends the process after a failed check: in a greenlet, an exception would not."""
    if not condition:
        traceback.print_stack()
        print("expected:", *what, file=sys.stderr, flush=True)
        os._exit(1)


def last_message():
    message = ctypes.create_string_buffer(200)
    host.host_last_message(message, 200)
    return message.value.decode()


def call(function, pooled=False):
    """Calls a Python function through Rust."""
    return (host.host_call_pooled if pooled else host.host_call)(callback(lambda _: function()), None)


class Own:
    """Plain greenlets of this thread, run by a loop in the greenlet that makes this."""

    make = coroutines.Coroutines

    def __init__(self):
        self.hooks = [self.make(host, "host_"), self.make(pages, "pages_")]
        self.loop = getcurrent()

    def spawn(self, function, *arguments):
        one = greenlet(functools.partial(self.body, function, *arguments), self.loop)
        one.switch()
        return one

    @staticmethod
    def body(function, *arguments):
        try:
            return function(*arguments)
        except GreenletExit:
            raise
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def run(self):
        coroutines.run(*self.hooks)

    def kill(self, one):
        one.throw()

    fork, waitpid = staticmethod(os.fork), staticmethod(os.waitpid)

    def suspended(self):
        return sum(len(hooks.suspended) for hooks in self.hooks)

    def close(self):
        check(self.suspended() == 0, "no greenlet to be suspended")
        check(host.host_open_calls() == 0, "no open calls, not", host.host_open_calls())
        for hooks in self.hooks:
            hooks.close()
        check(host.host_sleep(1) == 0 and pages.pages_nap(1) == 0, "waits to block")


class Gevent(Own):
    """gevent's greenlets of this thread."""

    make = coroutines.Gevent

    def __init__(self):
        super().__init__()
        self.spawned = []

    def spawn(self, function, *arguments):
        self.spawned.append(gevent.spawn(self.body, function, *arguments))
        return self.spawned[-1]

    def run(self):
        gevent.joinall(self.spawned)
        self.spawned.clear()

    def kill(self, one):
        one.kill()

    fork, waitpid = staticmethod(gevent.os.fork), staticmethod(gevent.os.waitpid)

    def close(self):
        super().close()
        if threading.current_thread() is not threading.main_thread():
            gevent.get_hub().destroy()


Greenlets = {"own": Own, "gevent": Gevent}[loop]


def let_begin():
    """Lets the spawned greenlets run up to their first waits."""
    if loop == "gevent":
        gevent.sleep(0)


def sleeps():
    """All wait at one time. With gevent, as long as with its own sleep, or not much longer."""
    greenlets = Greenlets()

    def took(wait, duration):
        start = time.perf_counter()
        ended = []
        for _ in range(MANY):
            greenlets.spawn(lambda: ended.append(wait(duration)))
        greenlets.run()
        check(len(ended) == MANY and not any(ended), "all to end well")
        return time.perf_counter() - start

    ways = {"upcall::sleep": (host.host_sleep, 10), "tokio": (pages.pages_nap, 10)}
    if loop == "gevent":
        ways["gevent.sleep"] = (gevent.sleep, 0.01)
    times = {way: [] for way in ways}
    for _ in range(9):
        for way, arguments in ways.items():
            times[way].append(took(*arguments))
    usual = times.get("gevent.sleep")
    for way, all in times.items():
        ratio = f", {median(all) / median(usual):.2f} of gevent.sleep's" if usual else ""
        print(f"{MANY} greenlets, 10 ms each, {way}: {median(all) * 1000:.1f} ms{ratio}")
        # One after the other, they would take ten seconds. The best of each: others use the machine.
        check(min(all) < (3 * min(usual) if usual else 2), "no more than three times gevent's own time")
    greenlets.close()


def stacks():
    """The thread's own stack moves, so Rust is on others: the main thread's, and another's."""

    def mapping(address):
        with open("/proc/self/maps") as maps:
            for line in maps:
                low, high = (int(end, 16) for end in line.split()[0].split("-"))
                if low <= address < high:
                    return low
        check(False, "a mapping")

    def check_frames():
        own = mapping(host.host_frame())
        greenlets, seen = Greenlets(), []
        for function in (host.host_frame, lambda: call(lambda: seen.append(host.host_frame()) or 0)):
            seen.append(function())
            greenlets.spawn(lambda: seen.append(function()))
            greenlets.run()
        seen = [frame for frame in seen if frame]
        check(len(seen) == 4 and own not in map(mapping, seen), "frames on pooled stacks")
        greenlets.close()

    check_frames()
    thread = threading.Thread(target=check_frames)
    thread.start()
    thread.join()


def timers():
    """tokio's timers are in lists of the runtime, whatever is copied meanwhile."""
    greenlets, choose = Greenlets(), random.Random(1)

    def nap(levels):
        if levels > 0:
            return nap(levels - 1)
        if choose.random() < 0.3:
            return call(lambda: nap(choose.randrange(20)), pooled=choose.random() < 0.5)
        return pages.pages_nap(choose.randrange(6)) + host.host_sleep(choose.randrange(3))

    def naps():
        for _ in range(10):
            check(nap(choose.randrange(20)) == 0, "naps to end well")

    victims = [greenlets.spawn(pages.pages_nap, 60000) for _ in range(100)]
    for _ in range(100):
        greenlets.spawn(naps)
    let_begin()
    for victim in victims:
        greenlets.spawn(greenlets.kill, victim)
    greenlets.run()
    greenlets.close()


def messages():
    """Greenlets wake each other."""
    greenlets, ended = Greenlets(), []

    def echo(to, back):
        for _ in range(100):
            check(host.host_send(back, host.host_receive(to) + 1) == 0, "the answer to be sent")

    def ask(to, back):
        for n in range(100):
            check(host.host_send(to, n) == 0 and host.host_receive(back) == n + 1, "an answer")
        ended.append(to)

    for _ in range(20):
        channels = host.host_channel_new(), host.host_channel_new()
        greenlets.spawn(echo, *channels)
        greenlets.spawn(ask, *channels)
    greenlets.run()
    check(len(ended) == 20, "all to have been answered")
    greenlets.close()


def threads():
    """Two threads, each with greenlets that wake those of the other."""
    channels = [host.host_channel_new() for _ in range(100)]
    ended, most = [], [0, 0]

    def run(number):
        greenlets = Greenlets()

        def talk(one, other):
            for n in range(20):
                check(host.host_sleep(n % 2) == 0 and host.host_send(other, n) == 0, "a message to be sent")
                check(host.host_receive(one) == n and pages.pages_nap(n % 3) == 0, n)
                most[number] = max(most[number], greenlets.suspended())
            ended.append(one)

        for n in range(0, 100, 2):
            greenlets.spawn(talk, channels[n + number], channels[n + 1 - number])
        greenlets.run()
        greenlets.close()

    two = [threading.Thread(target=run, args=[number]) for number in (0, 1)]
    for thread in two:
        thread.start()
    for thread in two:
        thread.join()
    check(len(ended) == 100 and min(most) > 5, "all to have talked at one time, not", most)


def nested():
    """Greenlet → Rust → Python → Rust, with a wait at each level."""
    greenlets, most = Greenlets(), 0

    def at(level):
        nonlocal most
        check(host.host_sleep(level % 3) == 0 and pages.pages_nap(level % 2) == 0, "waits to end well")
        most = max(most, greenlets.suspended())
        if level < 5:
            check(call(lambda: at(level + 1), pooled=level % 2) == level + 1, level + 1)
        check(host.host_wait_for_worker(level) == level, level)
        return level

    for _ in range(50):
        greenlets.spawn(at, 0)
    greenlets.run()
    check(most > 20, "many to be suspended at one time, not", most)
    greenlets.close()


def panics():
    """A panic in one greenlet goes through its own calls, whatever others do meanwhile."""
    greenlets, ended, most = Greenlets(), [], []

    def panic(number):
        def inside():
            check(host.host_sleep(number % 4) == 0, "the wait to end well")
            most.append(greenlets.suspended())
            check(host.host_panic(b"panic %d" % number) == -1, "a panic")
            check(host.host_sleep(number % 3) == 0, "waits after a panic")
            return 1

        message = ctypes.create_string_buffer(200)
        result = host.host_catch(callback(lambda _: inside()), None, message, 200)
        check(result == -2 and message.value == b"panic %d" % number, number, "not", result, message.value)
        ended.append(number)

    for number in range(30):
        greenlets.spawn(panic, number)
    greenlets.run()
    check(len(ended) == 30 and max(most) > 5, "all to end, suspended at one time")
    greenlets.close()


def others_live():
    """A killed greenlet, or a panic in one, is nothing to the others, wherever they are suspended."""
    greenlets, channels, got = Greenlets(), [], []

    def deep(levels, function):
        # `map` calls it from C, so the C stack is deeper, too.
        return function() if levels == 0 else next(map(lambda _: deep(levels - 1, function), [0]))

    def receive(number, channel):
        waits = functools.partial(host.host_receive, channel)
        # Half of them in a callback, and each at a depth of its own.
        result = deep(number % 7, functools.partial(call, waits) if number % 2 else waits)
        got.append(result)

    def end(number):
        if number % 2:
            check(host.host_panic(b"panic") == -1, "a panic")
        else:
            host.host_receive(host.host_channel_new())

    for number in range(60):
        channels.append(host.host_channel_new())
        greenlets.spawn(receive, number, channels[-1])
    # Deeper than the others.
    victims = [greenlets.spawn(deep, 8, functools.partial(end, number)) for number in range(20)]
    let_begin()
    for victim in victims:
        if not victim.dead:
            greenlets.kill(victim)
    check(greenlets.suspended() == 60 and not got, "60 to be suspended")
    for channel in reversed(channels):
        check(host.host_send(channel, 5) == 0, "a message to be sent")
    greenlets.run()
    check(got == [5] * 60, "all to go on, not", got)
    greenlets.close()


def killed():
    """Rust drops the future and unwinds, at each level; Python sees the exception, at each level."""
    greenlets, never, told = Greenlets(), host.host_channel_new(), []

    def receive(level):
        try:
            if level == 0:
                return host.host_receive(never)
            return call(lambda: receive(level - 1))
        except GreenletExit:
            told.append(level)
            # The exception is taken: further waits are waits.
            check(level > 0 or pages.pages_nap(1) == 0, "a wait while an exception is handled")
            raise

    victims = [greenlets.spawn(receive, number % 3) for number in range(30)]
    let_begin()
    check(greenlets.suspended() == 30, "all to be suspended")
    for victim in victims:
        greenlets.spawn(greenlets.kill, victim)
    greenlets.run()
    check(all(victim.dead for victim in victims) and sorted(told) == [0] * 30 + [1] * 20 + [2] * 10, "all to be told")
    check(host.host_send(never, 5) == 0 and host.host_receive(never) == 5, "a message for the next receiver")
    greenlets.close()


def caught():
    """A callback catches the exception. Rust unwinds nevertheless, and the greenlet goes on."""
    greenlets, said = Greenlets(), []

    def inside():
        try:
            host.host_receive(host.host_channel_new())
        except GreenletExit:
            said.append("caught")
            return 7

    def outside():
        said.append((call(inside), last_message()))
        check(host.host_sleep(1) == 0, "the greenlet to go on")

    victim = greenlets.spawn(outside)
    let_begin()
    greenlets.spawn(greenlets.kill, victim)
    greenlets.run()
    check(said[0] == "caught" and said[1][0] == -1 and "ended the coroutine" in said[1][1], "the error value, not", said)
    greenlets.close()


def killed_when_ready():
    """A greenlet dies after its wake, and before the loop has served that."""
    greenlets, channel, told = Greenlets(), host.host_channel_new(), []

    def receive():
        try:
            host.host_receive(channel)
        except GreenletExit:
            told.append(1)
            raise

    victim = greenlets.spawn(receive)
    let_begin()
    check(host.host_send(channel, 5) == 0, "the message to be sent")
    greenlets.kill(victim)
    check(told == [1] and victim.dead, "the greenlet to be dead")
    other = greenlets.spawn(lambda: told.append(host.host_receive(channel)))
    greenlets.run()
    check(told == [1, 5] and other.dead, "the message for another, not", told)
    greenlets.close()


def too_soon():
    """A greenlet resumed without a wake goes on waiting."""
    greenlets, channel, got = Greenlets(), host.host_channel_new(), []
    one = greenlets.spawn(lambda: got.append(host.host_receive(channel)))
    let_begin()
    for _ in range(100):
        if loop == "gevent":
            gevent.get_hub().loop.run_callback(one.switch)
            gevent.sleep(0)
        else:
            one.switch()
        check(greenlets.suspended() == 1 and not got, "it to wait")
    check(host.host_send(channel, 5) == 0, "the message to be sent")
    greenlets.run()
    check(got == [5], "the message")
    greenlets.close()


def on_the_loop():
    """A wait of the loop's own greenlet blocks the thread: no other greenlet runs."""
    greenlets, ran, channel = Greenlets(), [], host.host_channel_new()
    greenlets.spawn(lambda: ran.append(host.host_receive(channel)))
    let_begin()

    def block():
        check(host.host_send(channel, 5) == 0, "the message to be sent")
        check(host.host_sleep(30) == 0 and not ran and greenlets.suspended() == 1, "the wait to block")
        ran.append("blocked")

    if loop == "gevent":
        gevent.get_hub().loop.run_callback(block)
    else:
        block()
    greenlets.run()
    check(ran == ["blocked", 5], "one to wait for the other, not", ran)
    greenlets.close()


def main_greenlet():
    """gevent's main greenlet is one as others: the others run while it waits."""
    greenlets, turns = Greenlets(), 0

    def count():
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0.001)

    one = gevent.spawn(count)
    check(pages.pages_nap(300) == 0 and turns > 5, "others to run, not", turns)
    one.kill()
    greenlets.close()


def timeouts():
    """gevent.Timeout ends a wait, and the next wait is a wait."""
    greenlets, ended = Greenlets(), []

    def limited(level):
        try:
            with gevent.Timeout(0.01):
                waits = pages.pages_nap if level % 2 else host.host_sleep
                call(lambda: waits(60000)) if level > 1 else waits(60000)
        except gevent.Timeout:
            ended.append(level)
        with gevent.Timeout(60):
            check(host.host_sleep(1) == 0 and call(lambda: pages.pages_nap(1)) == 0, "waits to end well")

    for number in range(100):
        greenlets.spawn(limited, number % 4)
    greenlets.run()
    check(len(ended) == 100, "a hundred timeouts, not", len(ended))
    greenlets.close()


def interrupted():
    """Ctrl-C reaches gevent's main greenlet in its wait."""
    greenlets = Greenlets()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        pages.pages_nap(60000)
        check(False, "an exception")
    except KeyboardInterrupt:
        pass
    greenlets.close()


def loop_ends():
    """The watcher keeps gevent's loop only while a greenlet is suspended."""
    greenlets, hub = Greenlets(), gevent.get_hub()
    check(hub.join(10) is True, "the hub to have nothing to do")
    greenlets.spawn(host.host_sleep, 1000)
    let_begin()
    check(hub.join(0.01) is not True, "the hub to go on")
    greenlets.run()
    check(hub.join(10) is True, "the hub to have nothing to do")
    greenlets.close()


def forks():
    """The child has the suspended greenlets, too. It kills them, and has new ones."""
    greenlets, ended, killed = Greenlets(), [], []

    def wait(waits, milliseconds):
        try:
            ended.append(waits(milliseconds))
        except GreenletExit:
            killed.append(1)

    both = host.host_sleep, pages.pages_nap
    old = [greenlets.spawn(wait, both[number % 2], 1000) for number in range(100)]
    let_begin()
    child = greenlets.fork()
    if child == 0:
        check(greenlets.suspended() == 100, "all to be suspended")
        for one in old:
            greenlets.kill(one)
        check(len(killed) == 100, "all to be killed")
        for number in range(100):
            greenlets.spawn(wait, both[number % 2], 10)
        greenlets.run()
    else:
        greenlets.run()
        check(greenlets.waitpid(child, 0) == (child, 0), "the child to end well")
    check(ended == [0] * 100, "all to end, not", ended)
    greenlets.close()
    if child == 0:
        sys.exit(0)


def thread_exits():
    """A thread ends with suspended greenlets, and another begins."""
    channel = host.host_channel_new()

    def leave():
        greenlets = Greenlets()
        for _ in range(10):
            greenlets.spawn(host.host_receive, channel)
            greenlets.spawn(pages.pages_nap, 20)
        let_begin()
        check(greenlets.suspended() == 20, "all to be suspended")

    def run():
        greenlets, got = Greenlets(), []
        greenlets.spawn(lambda: got.append(host.host_sleep(30) + pages.pages_nap(1)))
        greenlets.run()
        check(got == [0], "it to wait")
        greenlets.close()

    for target in (leave, run, leave, run):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()


def exits():
    """The process exits with suspended greenlets: in Rust, and in Python called by Rust."""
    greenlets = Greenlets()
    for _ in range(10):
        greenlets.spawn(host.host_sleep, 60000)
        greenlets.spawn(pages.pages_nap, 60000)
        greenlets.spawn(call, lambda: host.host_receive(host.host_channel_new()))
    let_begin()
    check(greenlets.suspended() == 30, "all to be suspended")


globals()[case]()
print("done")
