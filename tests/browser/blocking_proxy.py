"""A proxy that takes no WebSockets, in threads of its own, as browser tests are synchronous."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

#: The treatment of a handshake: refused, never answered, passed on.
Way = Literal["refuse", "hang", "pass"]

REFUSAL = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BlockingProxy:
    """Passes connections on to a port of this machine, except for handshakes of WebSockets.

    Attributes:
        way: the treatment of handshakes.
        handshakes: how many have come.
        url: its address.
    """

    def __init__(self, port: int, way: Way) -> None:
        self.way = way
        self.handshakes = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()

    def cut(self) -> None:
        """Cut every connection."""
        for each in list(self._sockets):
            _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # it is closed
                return
            self._threads.append(threading.Thread(target=self._serve, args=[client]))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with self._kept(client), suppress(OSError):  # a side that is killed resets its connection, at any moment
            head = b""
            while b"\r\n\r\n" not in head:
                part = _receive(client)
                if not part:
                    return
                head += part
            if b"upgrade: websocket" in head.lower():
                self.handshakes += 1
                if self.way == "refuse":
                    client.sendall(REFUSAL)
                    return
                if self.way == "hang":
                    _receive(client)
                    return
            with self._kept(socket.create_connection(("127.0.0.1", self._port))) as server:
                server.sendall(head)
                back = threading.Thread(target=_copy, args=[server, client])
                back.start()
                _copy(client, server)
                back.join()

    @contextmanager
    def _kept(self, each: socket.socket) -> Iterator[socket.socket]:
        self._sockets.add(each)
        try:
            yield each
        finally:
            self._sockets.discard(each)
            each.close()


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65_536)
    except OSError:  # reset
        return b""


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed
        pass


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until one of them ends, and end both."""
    try:
        while part := _receive(source):
            target.sendall(part)
    except OSError:  # reset
        pass
    _shut(source)
    _shut(target)
