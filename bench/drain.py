"""The client for large downloads: one connection a URL, so many at a time, bytes thrown away.

The kernel frees what has come without copying it (MSG_TRUNC, tcp(7)), so that the client costs
about 0.3 of a core. curl costs a whole one at eight connections and would be what is measured; the
server's work would then move into the client's acknowledgements, and out of the server's account.

A program of its own, so that its time is told apart: `python -m bench.drain SIZE CONNECTIONS`,
URLs on standard input; prints JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from urllib.parse import SplitResult, urlsplit

# Larger steps let the kernel put off acknowledgements: a file of 1 MiB then takes 20 ms.
_STEP_BYTES = 2**18
_HEAD_BYTES = 16384
_SILENCE_SECONDS = 60


def main() -> None:
    """Get them.

    Raises:
        SystemExit: One was not answered with 200 and all of its bytes.
    """
    size, connections = int(sys.argv[1]), int(sys.argv[2])
    requests = [_request(urlsplit(line)) for line in reversed(sys.stdin.read().split())]
    buffer = bytearray(_STEP_BYTES)
    poll = select.epoll()
    waiting: dict[int, _Answer] = {}
    began, cpu_before = time.monotonic(), time.process_time()
    while requests or waiting:
        while requests and len(waiting) < connections:
            address, request = requests.pop()
            connected = socket.create_connection(address)
            connected.sendall(request)
            waiting[connected.fileno()] = _Answer(connected, size)
            poll.register(connected.fileno(), select.EPOLLIN)
        events = poll.poll(_SILENCE_SECONDS)
        if not events:
            sys.exit(f"{len(waiting)} answers fell silent")
        for fd, _ in events:
            if waiting[fd].take(buffer):
                poll.unregister(fd)
                waiting.pop(fd).socket.close()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu_before
    print(json.dumps({"seconds": seconds, "client_cpu_seconds": cpu}))


def _request(url: SplitResult) -> tuple[tuple[str, int], bytes]:
    head = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAccept: */*\r\n\r\n"
    return (url.hostname or "", url.port or 80), head.encode()


class _Answer:
    def __init__(self, connected: socket.socket, size: int) -> None:
        self.socket = connected
        self._size = size
        self._head = b""
        self._got = -1

    def take(self, buffer: bytearray) -> bool:
        """Take what has come; whether that was the end."""
        if self._got < 0:
            self._head += self.socket.recv(_HEAD_BYTES)
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                if not self._head:
                    sys.exit("a connection ended without an answer")
                return False
            if b" 200 " not in head.partition(b"\r\n")[0]:
                sys.exit(head.decode(errors="replace"))
            self._got = len(body)
        else:
            count = self.socket.recv_into(buffer, _STEP_BYTES, socket.MSG_TRUNC)
            if not count:
                sys.exit(f"a connection ended after {self._got} of {self._size} bytes")
            self._got += count
        if self._got > self._size:
            sys.exit(f"more than {self._size} bytes")
        return self._got == self._size


if __name__ == "__main__":
    main()
