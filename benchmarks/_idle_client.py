"""The clients of P8, in a process of their own: many WebSockets that are silent most of the time.

``python -m benchmarks._idle_client <port> <clients>`` writes a line to stdout when all clients are connected. For each
line on stdin the first client sends a message; when all clients have received it, the process writes a line to stdout.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys

from ._echo_client import ANSWER, FRAME, connect

#: Open descriptors of a process besides its sockets.
OTHERS = 100

PING, PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)


def allow_descriptors(count: int) -> None:
    """Raise the limit of open files for this number of sockets, in this process and its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count + OTHERS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + OTHERS, hard))


class Crowd:
    """The clients.

    Args:
        port: the server's port.
        number: the number of clients.
    """

    def __init__(self, port: int, number: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.waiting: set[socket.socket] = set()
        self.clients: list[socket.socket] = []
        for _ in range(number):
            client = connect(port)
            self.clients.append(client)
            self.selector.register(client, selectors.EVENT_READ, client)
            if len(self.clients) % OTHERS == 0:  # the server pings the first clients while others connect
                self.read(timeout=0)

    def read(self, timeout: float | None = None) -> bool:
        """Read the sockets, and answer pings. Returns whether there is a line on stdin."""
        has_line = False
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                has_line = True
                continue
            data = key.data.recv(65_536)
            if not data:
                raise RuntimeError("expected an open connection; the server has closed it")
            if PING in data:
                key.data.send(PONG)
            if ANSWER in data:
                self.waiting.discard(key.data)
        return has_line

    def broadcast(self) -> None:
        """Send a message from the first client, and wait until all have received it."""
        self.waiting = set(self.clients)
        self.clients[0].send(FRAME)
        while self.waiting:
            self.read()


def main(port: int, number: int) -> None:
    allow_descriptors(number)
    crowd = Crowd(port, number)
    crowd.selector.register(sys.stdin, selectors.EVENT_READ)
    print("connected", flush=True)
    while True:
        if crowd.read():
            if not sys.stdin.readline():
                return
            crowd.broadcast()
            print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
