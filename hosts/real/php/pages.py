"""A server of pages on the loopback, for pages.php. It prints its port and serves until its stdin ends.

Every page takes 5 to 10 milliseconds, without keeping others waiting. Connections may be kept.
"""

import asyncio
import os
import sys


async def serve(reader, writer):
    while line := await reader.readline():
        number = int(line.split(b"/")[1].split()[0])
        keeps = b"HTTP/1.1" in line
        while (await reader.readline()).strip():
            pass
        await asyncio.sleep(0.005 + number % 6 * 0.001)
        page = b"page %d " % number * (1 + number % 300)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))
        if not keeps:
            break
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # without an end of the connections


asyncio.run(main())
