"""Usage: `pages.py FOLDER`. Fetches 200 pages from a server of its own, in three ways.

`libpages.so` in FOLDER is a library of hyper and tokio. Its calls wait one after the other, or
suspend gevent's greenlets on one thread; beside them, gevent runs Python's own client.
"""

import gevent.monkey

if __name__ == "__main__":
    gevent.monkey.patch_all()

import asyncio
import ctypes
import multiprocessing
import sys
import time
import urllib.request
from statistics import median

import gevent

import coroutines

PAGES, ROUNDS, DELAY = 200, 5, 0.007


def text(path):
    return f"page {path}\n" + "x" * (len(path) * 100)


def serve(port_to):
    """The server, in a process of its own: each page takes 7 ms."""

    async def answer(reader, writer):
        while request := await reader.readline():
            path = request.split()[1].decode()
            keeps = True
            while (header := await reader.readline()) not in (b"\r\n", b""):
                keeps &= header.lower() != b"connection: close\r\n"
            await asyncio.sleep(DELAY)
            body = text(path).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            if not keeps:
                break
        writer.close()

    async def run():
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=PAGES)
        port_to.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def rust(url):
    page = library.pages_get(url.encode())
    if page is None:
        message = ctypes.create_string_buffer(200)
        library.pages_last_message(message, ctypes.c_size_t(200))
        raise OSError(message.value.decode())
    try:
        return ctypes.string_at(page).decode()
    finally:
        library.pages_memory_free(page)


def python(url):
    with urllib.request.urlopen(url) as page:
        return page.read().decode()


def in_greenlets(fetch, urls):
    greenlets = [gevent.spawn(fetch, url) for url in urls]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def measure(way, fetch_all, urls, expected):
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        got = fetch_all(urls)
        times.append(time.perf_counter() - start)
        if got != expected:
            sys.exit(f"{way}: the pages are not those of the server")
    print(f"{PAGES} pages, {way}: {median(times) * 1000:.0f} ms")
    return median(times)


def main():
    port_from, port_to = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=[port_to], daemon=True)
    server.start()
    root = f"http://127.0.0.1:{port_from.recv()}"
    paths = [f"/{number}" for number in range(PAGES)]
    urls, expected = [root + path for path in paths], [text(path) for path in paths]
    try:
        blocking = measure("hyper, one after the other", lambda urls: list(map(rust, urls)), urls, expected)
        measure("gevent's urllib in greenlets", lambda urls: in_greenlets(python, urls), urls, expected)
        hooks = coroutines.Gevent(library, "pages_")
        suspended = measure("hyper in greenlets", lambda urls: in_greenlets(rust, urls), urls, expected)
        hooks.close()
        if suspended * 3 > blocking:
            sys.exit("the greenlets have waited for each other")
    finally:
        server.kill()
    print("done")


if __name__ == "__main__":
    library = coroutines.Library(sys.argv[1] + "/libpages.so")
    library.pages_get.restype = ctypes.c_void_p
    library.pages_memory_free.argtypes = [ctypes.c_void_p]
    main()
