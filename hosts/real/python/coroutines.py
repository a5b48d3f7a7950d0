"""Greenlets that wait in Rust: a wait suspends the greenlet, and its thread goes on with others.

With gevent, once a thread, for each library with upcall inside:

    library = coroutines.Library("libpages.so")
    coroutines.Gevent(library, "pages_")
    gevent.joinall([gevent.spawn(library.pages_nap, 10) for _ in range(1000)])

With plain greenlets, the thread's loop watches a descriptor:

    hooks = coroutines.Coroutines(library, "pages_")
    for _ in range(1000):
        greenlet(library.pages_nap).switch(10)
    coroutines.run(hooks)

If something is thrown into a suspended greenlet, Rust drops its future and returns its error value.
Then `Library` raises the exception again. `README.md` beside this file says more.
"""

import ctypes
import select
import weakref

from greenlet import getcurrent

STACKS_MOVE = 2
Current = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
Suspend = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

# The hooks of all threads. Rust has their addresses until `close`.
_installed = set()
# The exceptions on their way through Rust, by greenlet.
_thrown = weakref.WeakKeyDictionary()


def raises(result, function=None, arguments=None):
    """Raises the exception that has ended a wait of this greenlet, if any. Returns the result.

    It is to be called after every call of Rust: `Library` does it, as does ctypes if a function has
    it as its `errcheck`.
    """
    if _thrown:
        error = _thrown.pop(getcurrent(), None)
        if error is not None:
            raise error
    return result


class Library(ctypes.CDLL):
    """A library with `raises` after each call.

    Calls release the GIL, so other threads go on while a wait blocks this one.
    """

    def __getitem__(self, name):
        function = super().__getitem__(name)
        function.errcheck = raises
        return function


def callback(kind, otherwise):
    """A decorator: makes a callback of the ctypes type `kind`, for calls by Rust.

    If an exception leaves the function, Rust gets the value `otherwise`, and the exception is
    raised again after the call of Rust.
    """

    def wrap(function):
        def call(*arguments):
            try:
                return function(*arguments)
            except BaseException as error:
                _thrown[getcurrent()] = error
                return otherwise

        return kind(call)

    return wrap


class Coroutines:
    """The hooks of a library in the calling thread, for greenlets and a loop.

    The loop runs in the current greenlet, or in the given one. It watches `fd`, and calls
    `run_ready` while that is readable. Waits in the loop's own greenlet block the thread.
    """

    def __init__(self, library, prefix="upcall_", loop=None):
        def function(result, name, *arguments):
            # A PYFUNCTYPE keeps the GIL: none of these functions waits.
            return ctypes.PYFUNCTYPE(result, *arguments)((prefix + name, library))

        pointer, number = ctypes.c_void_p, ctypes.c_int
        self.loop = getcurrent() if loop is None else loop
        # The suspended greenlets by their tokens.
        self.suspended = {}
        self._next_ready = function(number, "coroutines_next_ready", pointer)
        self._uninstall = function(number, "coroutines_uninstall", ctypes.c_uint)
        self._hooks = Current(self._current), Suspend(self._suspend)
        install = function(number, "coroutines_install", ctypes.c_uint, pointer, Current, Suspend, pointer)
        self.fd = function(number, "coroutines_fd")()
        if self.fd == -1 or install(STACKS_MOVE, None, *self._hooks, None) == -1:
            message = ctypes.create_string_buffer(300)
            function(number, "last_message", pointer, ctypes.c_size_t)(message, 300)
            raise RuntimeError(message.value.decode())
        _installed.add(self)

    def close(self):
        """Uninstalls the hooks: waits of this thread block it again. No greenlet may be suspended.

        To be called before the thread ends. The main thread may exit without.
        """
        if self.suspended:
            raise RuntimeError(f"{len(self.suspended)} greenlets wait in Rust: let them end, or kill them")
        self._uninstall(0)
        _installed.discard(self)

    def run_ready(self):
        """Resumes the greenlets that can go on, each at most once."""
        token = ctypes.c_void_p()
        for _ in range(len(self.suspended) + 1):
            if self._next_ready(ctypes.byref(token)) != 1:
                break
            self.suspended[token.value].switch()

    def _current(self, _):
        running = getcurrent()
        return None if running is self.loop else id(running)

    def _suspend(self, _, token):
        running = getcurrent()
        try:
            self.suspended[token] = running
            self._switch_to_loop()
            return 0
        except BaseException as error:
            # ctypes ignores what leaves a callback. `raises` raises it after the call of Rust.
            _thrown[running] = error
            return 1
        finally:
            self.suspended.pop(token, None)

    def _switch_to_loop(self):
        self.loop.switch()


def run(*hooks):
    """A loop that does nothing else. It ends when no greenlet is suspended by these hooks."""
    poll = select.poll()
    for each in hooks:
        poll.register(each.fd, select.POLLIN)
    while any(each.suspended for each in hooks):
        poll.poll()
        for each in hooks:
            each.run_ready()


class Gevent(Coroutines):
    """The hooks of a library in the calling thread, for gevent: its hub is the loop."""

    def __init__(self, library, prefix="upcall_"):
        import gevent

        hub = gevent.get_hub()
        super().__init__(library, prefix, hub)
        self.watcher = hub.loop.io(self.fd, 1, ref=False)
        self.watcher.start(self.run_ready)

    def close(self):
        super().close()
        self.watcher.close()

    def _switch_to_loop(self):
        # The hub goes on watching while greenlets are suspended, and can end otherwise.
        if len(self.suspended) == 1:
            self.watcher.ref = True
        try:
            self.loop.switch()
        finally:
            if len(self.suspended) == 1:
                self.watcher.ref = False
