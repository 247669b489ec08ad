"""The clients of P9, in a process of their own: WebSockets that only read.

``python -m benchmarks._broadcast_client <port> <clients>`` says "open" once all are accepted. Then it reads lines with
a number from stdin; for each it waits until every client has this number of messages more, and writes "done". All that
a client gets is compared, byte by byte.
"""

from __future__ import annotations

import selectors
import socket
import sys

from ._echo_client import connect

TEXT = "x" * 100
FRAME = bytes((0x81, len(TEXT))) + TEXT.encode()


def read(clients: list[socket.socket], selector: selectors.BaseSelector, count: int) -> None:
    """Read this number of messages with each client."""
    missing = dict.fromkeys(clients, count * len(FRAME))
    unfinished = len(clients)
    while unfinished:
        for key, _ in selector.select():
            client = key.data
            data = client.recv(65_536)
            at = count * len(FRAME) - missing[client]
            expected = FRAME * (len(data) // len(FRAME) + 2)
            if not data or data != expected[at % len(FRAME) :][: len(data)]:
                raise RuntimeError(f"expected frames of {TEXT[:3]!r}...; got {data!r:.80}")
            missing[client] -= len(data)
            if not missing[client]:
                unfinished -= 1


def main(port: int, number: int) -> None:
    clients = [connect(port) for _ in range(number)]
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
        print("open", flush=True)
        for line in sys.stdin:
            read(clients, selector, int(line))
            print("done", flush=True)
    for client in clients:
        client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
