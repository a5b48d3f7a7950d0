"""The Rust functions for cases.py, in each way to bind them.

A panic is the exception `UpcallError`. Callbacks take nothing and return an int.
"""

import pathlib
import sys

HEADER = (pathlib.Path(__file__).parent / "src/python_host.h").read_text()


class FromC:
    """The common part for ctypes and cffi."""

    class UpcallError(Exception):
        pass

    def __init__(self):
        self.callbacks = []

    def checked(self, result):
        if result == -1:
            message = self.buffer()
            self.library.host_last_message(message, 200)
            raise self.UpcallError(self.text(message))
        return result

    def call(self, function):
        return self.checked(self.library.host_call(self.callback(function), self.null))

    def call_pooled(self, function):
        return self.checked(self.library.host_call_pooled(self.callback(function), self.null))

    def catch(self, function):
        message = self.buffer()
        result = self.checked(self.library.host_catch(self.callback(function), self.null, message, 200))
        return self.text(message) if result == -2 else result

    def panic(self, message):
        self.checked(self.library.host_panic(message.encode()))

    def wait_for_worker(self, number):
        return self.checked(self.library.host_wait_for_worker(number))

    def sort(self, numbers, compare):
        array = self.array(numbers)
        self.checked(self.library.host_sort(array, len(numbers), self.comparison(compare), self.null))
        return list(array)

    def start(self, function):
        # Kept alive for its later call.
        self.callbacks.append(self.callback(lambda: function() or 0))
        self.checked(self.library.host_start(self.callbacks[-1], self.null))

    def local_run_ready(self):
        return self.library.host_local_run_ready(sys.maxsize)

    def Channel(self):
        return ChannelFromC(self)

    def __getattr__(self, name):
        return getattr(self.library, "host_" + name)


class ChannelFromC:
    def __init__(self, binding):
        self.binding, self.channel = binding, binding.library.host_channel_new()

    def send(self, number):
        self.binding.checked(self.binding.library.host_send(self.channel, number))

    def receive(self):
        return self.binding.checked(self.binding.library.host_receive(self.channel))

    def __del__(self):
        self.binding.library.host_channel_free(self.channel)


class Ctypes(FromC):
    null = None

    def __init__(self, path):
        import ctypes

        super().__init__()
        self.ctypes, self.library = ctypes, ctypes.CDLL(path)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.Callback = ctypes.CFUNCTYPE(ctypes.c_int, pointer)
        self.Comparison = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, pointer)
        self.library.host_channel_new.restype = pointer
        self.library.host_local_run_ready.restype = ctypes.c_long
        for name, types in {
            "host_catch": [self.Callback, pointer, pointer, size],
            "host_sort": [pointer, size, self.Comparison, pointer],
            "host_send": [pointer, ctypes.c_int],
            "host_receive": [pointer],
            "host_channel_free": [pointer],
            "host_local_run_ready": [size],
            "host_last_message": [pointer, size],
        }.items():
            getattr(self.library, name).argtypes = types

    def buffer(self):
        return self.ctypes.create_string_buffer(200)

    def text(self, buffer):
        return buffer.value.decode()

    def array(self, numbers):
        return (self.ctypes.c_int * len(numbers))(*numbers)

    def callback(self, function):
        return self.Callback(lambda argument: function())

    def comparison(self, compare):
        return self.Comparison(lambda a, b, argument: compare(a, b))


class Cffi(FromC):
    def __init__(self, ffi, library):
        super().__init__()
        self.ffi, self.library, self.null = ffi, library, ffi.NULL

    @staticmethod
    def abi(path):
        from cffi import FFI

        ffi = FFI()
        ffi.cdef(HEADER)
        return Cffi(ffi, ffi.dlopen(path))

    @staticmethod
    def api(path):
        """The module compiled beforehand by `build`."""
        from _python_host import ffi, lib

        return Cffi(ffi, lib)

    @staticmethod
    def build(path):
        from cffi import FFI

        path, ffi = pathlib.Path(path), FFI()
        ffi.cdef(HEADER)
        folder = str(path.parent)
        source = f"#include <stddef.h>\n{HEADER}"
        ffi.set_source(
            "_python_host", source, libraries=[f":{path.name}"], library_dirs=[folder], runtime_library_dirs=[folder]
        )
        ffi.compile(tmpdir=folder)

    def buffer(self):
        return self.ffi.new("char[200]")

    def text(self, buffer):
        return self.ffi.string(buffer).decode()

    def array(self, numbers):
        return self.ffi.new("int[]", numbers)

    def callback(self, function):
        return self.ffi.callback("callback", lambda argument: function())

    def comparison(self, compare):
        return self.ffi.callback("int (*)(int, int, void *)", lambda a, b, argument: compare(a, b))


def pyo3(path):
    import python_host

    return python_host


BINDINGS = {"ctypes": Ctypes, "cffi_abi": Cffi.abi, "cffi_api": Cffi.api, "pyo3": pyo3}

if __name__ == "__main__":
    Cffi.build(sys.argv[1])
