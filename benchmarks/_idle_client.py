"""The clients of P8, in a process of their own: many WebSockets that say nothing until one of them does.

``python -m benchmarks._idle_client <port> <clients>``: a line on stdout when all are connected; then for each line on
stdin, the first one says something, and a line on stdout when all have heard it.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys

from ._echo_client import ANSWER, FRAME, connect

#: Descriptors that a process has open besides its sockets.
OTHERS = 100

PING, PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)


def allow_descriptors(count: int) -> None:
    """Raise the limit of open files, of this process and of those that it starts, for so many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count + OTHERS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + OTHERS, hard))


class Crowd:
    """The clients.

    Args:
        port: of the server.
        number: how many.
    """

    def __init__(self, port: int, number: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.waiting: set[socket.socket] = set()
        self.clients: list[socket.socket] = []
        for _ in range(number):
            client = connect(port)
            self.clients.append(client)
            self.selector.register(client, selectors.EVENT_READ, client)
            if len(self.clients) % OTHERS == 0:  # the first are pinged while the last connect
                self.read(timeout=0)

    def read(self, timeout: float | None = None) -> bool:
        """Take what comes, and answer pings. Returns whether there is a line on stdin."""
        asked = False
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                asked = True
                continue
            heard = key.data.recv(65_536)
            if not heard:
                raise RuntimeError("the server has closed a connection")
            if PING in heard:
                key.data.send(PONG)
            if ANSWER in heard:
                self.waiting.discard(key.data)
        return asked

    def hear(self) -> None:
        """Have the first say something, and all hear it."""
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
            crowd.hear()
            print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
