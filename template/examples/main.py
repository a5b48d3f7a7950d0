"""Counts the words of a text, of files, and of a page: main.py LIBRARY [--fetch SERVER PATH] FILES

The page is awaited in asyncio. Cancelling that cancels the library's operation.
"""

import asyncio
import ctypes
import itertools
import sys

c = ctypes.CDLL(sys.argv[1])
Completion = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int)
Visit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p)


def function(name, returns, *takes):
    """A C function of the library."""
    found = getattr(c, "{{crate_name}}_" + name)
    found.restype, found.argtypes = returns, takes
    return found


pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t)
last_message = function("last_message", ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
new = function("new", pointer)
free = function("free", ctypes.c_int, pointer)
add = function("add", ctypes.c_int, pointer, text, size)
add_file = function("add_file", ctypes.c_int, pointer, text, size)
each = function("each", ctypes.c_int, pointer, Visit, pointer, ctypes.POINTER(ctypes.c_int))
most_common = function("most_common", pointer, pointer)
memory_free = function("memory_free", ctypes.c_int, pointer)
fetch = function("fetch", pointer, text, text, ctypes.c_uint32, Completion, ctypes.c_size_t)
fetched = function("fetched", ctypes.c_int, pointer, pointer, size)
task_free = function("task_free", ctypes.c_int, pointer, ctypes.c_int)


class Error(Exception):
    """An error of the library."""


def check(succeeded):
    """Raises the last message, unless the call has succeeded."""
    if not succeeded:
        message = ctypes.create_string_buffer(300)
        last_message(message, len(message))
        raise Error(message.value.decode())


class Words:
    """A table of counted words."""

    def __init__(self):
        self.raw = new()
        check(self.raw)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        check(free(self.raw) == 0)

    def _added(self, call, *arguments):
        """Calls a function that counts words; returns how many it has counted."""
        added = ctypes.c_size_t()
        check(call(self.raw, *arguments, added) == 0)
        return added.value

    def add(self, words):
        return self._added(add, words.encode())

    def add_file(self, path):
        return self._added(add_file, path.encode())

    def counts(self):
        counts = {}

        def visit(word, count, _):
            counts[word.decode()] = count
            return 0

        check(each(self.raw, Visit(visit), None, ctypes.c_int()) == 0)
        return counts

    def most_common(self):
        word = most_common(self.raw)
        check(word)
        try:
            return ctypes.string_at(word).decode()
        finally:
            memory_free(word)

    async def fetch(self, server, path):
        """Fetches a page, and counts its words."""
        loop, number = asyncio.get_running_loop(), next(numbers)
        ended = loop.create_future()
        waiting[number] = loop, ended
        task = fetch(server.encode(), path.encode(), 5000, complete, number)
        check(task)
        try:
            await ended
            return self._added(fetched, task)
        finally:
            task_free(task, 1)


waiting = {}
numbers = itertools.count(1)


@Completion
def complete(number, _task, _status):
    """Called once for each fetch, on a thread of the library."""
    loop, ended = waiting.pop(number)
    try:
        loop.call_soon_threadsafe(lambda: ended.done() or ended.set_result(None))
    except RuntimeError:
        pass  # the loop is closed


async def main(arguments):
    with Words() as words:
        assert words.add("the cat and the dog") == 5
        if arguments[:1] == ["--fetch"]:
            await words.fetch(*arguments[1:3])
            del arguments[:3]
        for path in arguments:
            words.add_file(path)
        counts = words.counts()
        for word, count in counts.items():
            print(f"{count:4} {word}")
        print(f"{sum(counts.values()):4} words in all")
        print(f'"{words.most_common()}" most often')


try:
    asyncio.run(main(sys.argv[2:]))
except Error as error:
    sys.exit(str(error))
