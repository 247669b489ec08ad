"""Clients that send bytes and vanish, in every combination, and an application that counts the ends it is told of."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote

import h2.config
import h2.connection
import trio

from .clients import GET, HANDSHAKE, Application, frame

#: States of the application while its client vanishes.
PLACES = ("waiting", "slow", "flooding", "unaccepted")

#: The last bytes of a client of a WebSocket.
FRAMES = {
    "nothing": b"",
    "a text": frame(1, b"text"),
    "a part of a message": frame(1, b"text", fin=False),
    "a part of a frame": frame(1, bytes(50))[:20],
    "more than waits for an application": frame(1, b"text") * 30,
    "a close": frame(8, b"\x03\xe8"),
    "a text and a close": frame(1, b"text") + frame(8, b"\x03\xe8"),
    "a ping": frame(9),
    "a reserved opcode": frame(3),
    "a frame that is too large": frame(2, size=b"\xff" + struct.pack("!Q", 2**40)),
}

HEAD = b"%s /%s HTTP/1.1\r\nHost: localhost\r\n"


def one_request(method: bytes, place: bytes, rest: bytes) -> bytes:
    return HEAD % (method, place) + rest


#: The last bytes of a client of HTTP/1.1, made from the place of its application.
REQUESTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda place: b"",
    "half a head": lambda place: HEAD % (b"GET", place),
    "a request": lambda place: one_request(b"GET", place, b"\r\n"),
    "a request and a half": lambda place: one_request(b"GET", place, b"\r\n") + b"GET /",
    "two requests": lambda place: one_request(b"GET", place, b"\r\n") * 2,
    "a POST without its body": lambda place: one_request(b"POST", place, b"Content-Length: 9\r\n\r\n"),
    "half a body": lambda place: one_request(b"POST", place, b"Content-Length: 9\r\n\r\nhalf"),
    "an early frame": lambda place: HANDSHAKE % (b"/" + place, b"") + frame(1, b"text"),
    "no HTTP": lambda place: b"\0\0\r\n\r\n",
}


def _post(client: h2.connection.H2Connection, place: bytes) -> int:
    number = client.get_next_available_stream_id()
    client.send_headers(number, [(b":method", b"POST"), *GET[1:], (b":path", b"/" + place)])
    return number


def _get(client: h2.connection.H2Connection, place: bytes) -> None:
    number = client.get_next_available_stream_id()
    client.send_headers(number, [*GET, (b":path", b"/" + place)], end_stream=True)


def _post_ping(client: h2.connection.H2Connection, place: bytes) -> None:
    _post(client, place)
    client.ping(bytes(8))


def _post_ping_reset(client: h2.connection.H2Connection, place: bytes) -> None:
    number = _post(client, place)
    _get(client, place)
    client.ping(bytes(8))
    client.reset_stream(number)


def post_and_reset(client: h2.connection.H2Connection, place: bytes) -> None:
    """A request that ends, on a connection that goes on."""
    client.reset_stream(_post(client, place))


def _post_and_goodbye(client: h2.connection.H2Connection, place: bytes) -> None:
    _post(client, place)
    client.close_connection()


#: The same for HTTP/2.
REQUESTS_2: dict[str, Callable[[h2.connection.H2Connection, bytes], object]] = {
    "nothing": lambda client, place: None,
    "a request": _get,
    "a POST without its body": _post,
    "a POST and a ping": _post_ping,
    "a POST, a ping and a reset": _post_ping_reset,
    "a POST and a goodbye": _post_and_goodbye,
}


class Place(NamedTuple):
    """The address of a server, and the TLS context of its clients."""

    address: Any
    tls: ssl.SSLContext | None = None


class Client:
    """A socket whose bytes and whose end go out at once; the server runs in between only where a test waits."""

    def __init__(self, to: Place) -> None:
        family = socket.AF_UNIX if isinstance(to.address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.connect(to.address)
        self.socket.setblocking(False)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = to.tls and to.tls.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )

    async def shake_hands(self) -> None:
        while self._tls is not None:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.send(self._out.read())
                await trio.lowlevel.wait_readable(self.socket)
                self._in.write(self.socket.recv(65_536))
            else:
                self.socket.send(self._out.read())
                return

    def send(self, data: bytes) -> None:
        if self._tls is not None and data:
            self._tls.write(data)
            data = self._out.read()
        if data:
            self.socket.send(data)

    async def receive(self) -> bytes:
        """Receive bytes, at least one."""
        while True:
            if self._tls is None:
                await trio.lowlevel.wait_readable(self.socket)
                data = self.socket.recv(65_536)
                assert data
                return data
            try:
                return self._tls.read(65_536)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self.socket)
                data = self.socket.recv(65_536)
                assert data
                self._in.write(data)

    async def open_websocket(self, target: str) -> None:
        self.send(HANDSHAKE % (b"/" + target.encode(), b""))
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.receive()
        assert data.startswith(b"HTTP/1.1 101")

    def begin_h2(self) -> None:
        self.h2.initiate_connection()
        self.send(self.h2.data_to_send())

    async def open_websocket_2(self, target: str) -> int:
        """Returns the number of its stream."""
        number = self.h2.get_next_available_stream_id()
        connect = ((b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:], (b":path", b"/" + target.encode()))
        self.h2.send_headers(number, [*connect, (b"sec-websocket-version", b"13")])
        self.send(self.h2.data_to_send())
        while not target.startswith("unaccepted"):
            events = self.h2.receive_data(await self.receive())
            if any(isinstance(event, h2.events.ResponseReceived) for event in events):
                break
        return number

    def _linger(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def finish(self) -> None:
        """Close; with unread bytes this is a reset too."""
        self.socket.close()

    def reset(self) -> None:
        self._linger()

    def half_close_and_reset(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        self._linger()

    def say_goodbye(self) -> None:
        """End TLS, then close the socket."""
        if self._tls is not None:
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # the server's part is still to come
                self.socket.send(self._out.read())
        self.socket.close()


WAYS = (Client.finish, Client.reset, Client.half_close_and_reset, Client.say_goodbye)


class Notes(Application):
    """Goes to the place in its path. Counts the instances that have begun, that live, and that were told of the end."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: Counter[str] = Counter()
        self.alive: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.ways: set[bool] = set()  # whether the events came directly from our connections
        self.go_on = trio.Event()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await super().http(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": 200, "headers": []}
        body = {"type": "http.response.body", "body": bytes(10_000), "more_body": True}
        await self._be(scope, receive, send, start, body)

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] in ("/", "/healthy"):
            await super().websocket(scope, receive, send)
            return
        await self._be(
            scope, receive, send, {"type": "websocket.accept"}, {"type": "websocket.send", "text": "a" * 999}
        )

    async def _be(self, scope: Any, receive: Any, send: Any, start: Any, more: Any) -> None:
        place = scope["path"][1:]
        with self.counted(scope) as case:
            if scope["type"] == "websocket":
                first = await receive()
                assert first["type"] == "websocket.connect", first
            if place != "unaccepted":
                try:
                    await send(start)
                    while place == "flooding":
                        await send(more)
                except OSError:
                    pass
            if place == "slow":
                await self.go_on.wait()
            while not (await receive())["type"].endswith(".disconnect"):
                pass
            self.told[case] += 1

    @contextmanager
    def counted(self, scope: Any) -> Iterator[str]:
        """Count an instance that lives as long as the block; yields the name of its case."""
        case = f"{scope['type']} {scope['path'][1:]}: {unquote(scope['query_string'].decode())}"
        self.begun[case] += 1
        self.alive[case] += 1
        try:
            yield case
        finally:
            self.alive[case] -= 1
