"""The clients of the benchmarks over sockets, in a process of their own: ``python -m benchmarks.sockets.clients``.

They do little work, so that the server is measured: an epoll loop over sockets, and frames made beforehand. All that a
client gets is checked. Each line of stdin is a command, as a JSON array of its name and its arguments (:class:`Clients`
has the commands). Each line of stdout is the answer: its value in JSON.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from .consumers import TEXT
from .project import LARGE, NAME, PART


def frame(text: str) -> bytes:
    """A message to the server, masked with zeros: the server unmasks them like any other mask."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode()


MESSAGE = bytes((0x81, len(TEXT))) + TEXT.encode()
ECHO, CLOSE = frame(TEXT), bytes((0x88, 0x82, 0, 0, 0, 0)) + (1000).to_bytes(2, "big")

#: Messages to all members that are on their way at a time: fewer than a mailbox holds.
AHEAD = 20
#: WebSockets that are opened before those that are open are read: the server pings them meanwhile.
AT_A_TIME = 100
#: Seconds without any progress after which the server counts as stuck.
PATIENCE = 60


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def handshake(port: int, path: str, cookie: str) -> socket.socket:
    """Open a WebSocket, and wait until it is accepted."""
    client = connect(port)
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Cookie: {cookie}\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        if not (more := client.recv(4_096)):
            break
        answer += more
    if not answer.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"expected a response with status 101; got {answer!r}")
    return client


class WebSocket:
    """One client, and the number of messages that it has got."""

    __slots__ = ("_rest", "got", "socket")

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(False)
        self.socket = client
        self.got = 0
        self._rest = b""

    def read(self) -> int:
        """Read what is there, answer pings, and return the number of messages."""
        data = self.socket.recv(65_536)
        if data == MESSAGE and not self._rest:  # by far the most frequent case
            self.got += 1
            return 1
        if not data:
            raise RuntimeError("expected an open connection; the server has closed it")
        data, messages = self._rest + data, 0
        while len(data) >= 2 and len(data) >= (end := 2 + (data[1] & 127)):
            part, data = data[:end], data[end:]
            if part == MESSAGE:
                messages += 1
            elif part[0] == 0x89:
                self.socket.send(bytes((0x8A, 0x80 | len(part) - 2)) + bytes(4) + part[2:])
            else:
                raise RuntimeError(f"expected a message or a ping; got {part!r}")
        self._rest = data
        self.got += messages
        return messages


class Clients:
    """All clients of this process, and the commands."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._all: list[WebSocket] = []

    def open(self, port: int, path: str, number: int, cookie: str = "") -> None:
        """Open WebSockets, beside those that are open."""
        for count in range(number):
            client = WebSocket(handshake(port, path, cookie))
            self._all.append(client)
            self._selector.register(client.socket, selectors.EVENT_READ, client)
            if count % AT_A_TIME == 0:
                self._read(0)

    def close(self) -> None:
        """Close all WebSockets."""
        for client in self._all:
            self._selector.unregister(client.socket)
            client.socket.close()
        self._all.clear()

    def echo(self, count: int) -> None:
        """Make this number of echoes; each client has one message on its way at a time."""
        to_send = to_receive = count
        for client in self._all[:count]:
            client.socket.send(ECHO)
            to_send -= 1
        while to_receive:
            for key, _ in self._select(PATIENCE):
                client = key.data
                if client.read():
                    to_receive -= 1
                    if to_send:
                        client.socket.send(ECHO)
                        to_send -= 1

    def publish(self, count: int) -> None:
        """Have the first client send this number of messages to all, and wait until each has them."""
        while count > 0:
            part = min(count, AHEAD)
            self._publish(part)
            count -= part

    def latencies(self, count: int) -> list[float]:
        """As :meth:`publish`, one message at a time; returns the seconds until the last client has each."""
        seconds = []
        for _ in range(count):
            before = time.perf_counter()
            self._publish(1)
            seconds.append(time.perf_counter() - before)
        return seconds

    def _publish(self, count: int) -> None:
        expected = self._all[0].got + count
        self._all[0].socket.send(frame(str(count)))
        self._receive(len(self._all) * count)
        if any(client.got != expected for client in self._all):
            raise RuntimeError(f"expected {expected} messages for each client; some got more, and some less")

    def idle(self, seconds: float) -> None:
        """Answer pings only."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if self._read(left):
                raise RuntimeError("expected no message")

    def first(self, number: int) -> list[float]:
        """One client after the other makes one echo; returns the seconds of each."""
        seconds = []
        for client in self._all[:: max(1, len(self._all) // number)][:number]:
            expected = client.got + 1
            before = time.perf_counter()
            client.socket.send(ECHO)
            self._receive(1)
            seconds.append(time.perf_counter() - before)
            if client.got != expected:
                raise RuntimeError("expected the echo; another client has got a message")
        return seconds

    def visit(self, port: int, path: str, count: int, cookie: str = "") -> None:
        """Connect, wait until the server accepts, close, and wait for its end; again and again."""
        for _ in range(count):
            client = handshake(port, path, cookie)
            client.sendall(CLOSE)
            while client.recv(4_096):
                pass
            client.close()

    def get(self, port: int, path: str, count: int, number: int) -> None:
        """Request a page this often, over that number of connections that are kept."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n".encode()
        expected = (b"the answer", f"the {NAME}".encode())
        to_send = to_receive = count
        with selectors.DefaultSelector() as selector:
            for _ in range(min(number, count)):
                client = connect(port)
                selector.register(client, selectors.EVENT_READ, bytearray())
                client.send(request)
                to_send -= 1
            while to_receive:
                for key, _ in _selected(selector, PATIENCE):
                    client = key.fileobj  # type: ignore[assignment]
                    answer = key.data
                    answer += client.recv(65_536)
                    head, end, body = bytes(answer).partition(b"\r\n\r\n")
                    if not end or len(body) < _length(head):
                        continue
                    if not head.startswith(b"HTTP/1.1 200") or body not in expected:
                        raise RuntimeError(f"expected status 200 and {expected}; got {bytes(answer)!r}")
                    answer.clear()
                    to_receive -= 1
                    if to_send:
                        client.send(request)
                        to_send -= 1
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    def download(self, port: int, path: str) -> None:
        """Read the large response."""
        with connect(port) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, got = b"", 0
            while part := client.recv(2**20):
                if b"\r\n\r\n" not in head:
                    head += part
                    got = len(head.partition(b"\r\n\r\n")[2])
                else:
                    got += len(part)
        if got != LARGE:
            raise RuntimeError(f"expected {LARGE} bytes; got {got}")

    def upload(self, port: int, path: str) -> None:
        """Send the large body."""
        with connect(port) as client:
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode())
            client.sendall(f"Content-Length: {LARGE}\r\n\r\n".encode())
            part = bytes(PART)
            for _ in range(LARGE // PART):
                client.sendall(part)
            answer = b""
            while more := client.recv(65_536):
                answer += more
        if not answer.endswith(str(LARGE).encode()):
            raise RuntimeError(f"expected the size {LARGE} as an answer; got {answer!r}")

    def _select(self, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
        return _selected(self._selector, timeout)

    def _receive(self, missing: int) -> None:
        """Read until all clients together have got this number of messages."""
        last = time.perf_counter()
        while missing:
            now = time.perf_counter()
            if messages := self._read(PATIENCE):
                missing, last = missing - messages, now
            elif now - last > PATIENCE:  # the server may ping, and have lost messages
                raise RuntimeError(f"expected {missing} more messages; got none within {PATIENCE} seconds")

    def _read(self, timeout: float) -> int:
        return sum([key.data.read() for key, _ in self._selector.select(timeout)])


def _selected(selector: selectors.BaseSelector, timeout: float) -> list[tuple[selectors.SelectorKey, int]]:
    ready = selector.select(timeout)
    if not ready:
        raise RuntimeError(f"expected data from the server; got none within {timeout} seconds")
    return ready


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RuntimeError(f"expected a content-length; got {head!r}")


def main() -> None:
    clients = Clients()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        command: Callable[..., object] = getattr(clients, name)
        print(json.dumps(command(*arguments)), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
