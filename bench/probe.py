"""Asks a server something small at a steady pace, and says how long its answers took.

A program of its own: `python -m bench.probe MILLISECONDS ADDRESS [METHOD PATH]` until its standard
input ends; prints a line when it begins, and JSON at the end. ADDRESS is `host:port` or a socket's
path; without METHOD it speaks Redis' protocol and says PING, else HTTP on one connection.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

_SILENCE_SECONDS = 30


def main() -> None:
    """Ask until nobody listens any more."""
    pause = int(sys.argv[1]) / 1000
    address, words = sys.argv[2], sys.argv[3:]
    if "/" in address:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
    connection.settimeout(_SILENCE_SECONDS)
    request = b"PING\r\n"
    if words:
        request = f"{words[0]} {words[1]} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
    print("asking", flush=True)
    latencies: list[float] = []
    while not latencies or not select.select([sys.stdin], [], [], pause)[0]:
        began = time.perf_counter()
        connection.sendall(request)
        _read_answer(connection, with_body=words[:1] == ["GET"])
        latencies.append((time.perf_counter() - began) * 1000)
    latencies.sort()
    print(
        json.dumps(
            {
                "count": len(latencies),
                "p50": latencies[len(latencies) // 2],
                "p99": latencies[len(latencies) * 99 // 100],
                "worst": latencies[-1],
            }
        )
    )


def _read_answer(connection: socket.socket, *, with_body: bool) -> None:
    answer = connection.recv(65536)
    if answer.startswith((b"+PONG", b"-LOADING")):
        return
    while b"\r\n\r\n" not in answer:
        answer += _more(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        sys.exit(head.decode(errors="replace"))
    if with_body:
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += _more(connection)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        sys.exit("the connection ended")
    return data


if __name__ == "__main__":
    main()
