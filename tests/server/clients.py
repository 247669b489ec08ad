"""Servers of hypercorn and of this package, and clients that can send any bytes, as no library's can."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h2.config
import h2.connection
import h2.events
import hypercorn.trio
import trio

from tests.integration.server.conftest import Server as BaseServer
from tests.integration.server.conftest import config_for_tests
from trio_channels.server import serve

#: Both ways to serve: tests show a defect of the first, and its absence in the second.
BARE: Callable[..., Any] = hypercorn.trio.serve
OURS: Callable[..., Any] = serve

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)


class Server(BaseServer):
    """A server that the data of a client may crash."""

    def __init__(self) -> None:
        super().__init__()
        self.died = trio.Event()
        self.error: BaseException | None = None

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def still_serves(self) -> None:
        """Check that a healthy client is served, by HTTP and by WebSocket."""
        assert (await self.request("GET", "/")).body == b"hello"
        async with self.websocket("/") as client:
            await client.send_message("still there?")
            assert await client.get_message() == "still there?"

    @asynccontextmanager
    async def served_meanwhile(self) -> AsyncIterator[None]:
        """Check that a connected client is answered during the block and after it, and a new client after it."""
        over = trio.Event()

        async def talk(client: Any) -> None:
            number = 0
            while not over.is_set() or number < 2:
                await client.send_message(f"{number}")
                assert await client.get_message() == f"{number}"
                number += 1

        async with self.websocket("/healthy") as client, trio.open_nursery() as nursery:
            nursery.start_soon(talk, client)
            yield
            over.set()
        await self.still_serves()


@asynccontextmanager
async def serving(how: Callable[..., Any], application: Any, **options: Any) -> AsyncIterator[Server]:
    """A server; the end of the block stops it as a signal does."""
    server = Server()

    async def run(task_status: trio.TaskStatus[Any]) -> None:
        config = config_for_tests(**options)
        try:
            await how(application, config, shutdown_trigger=server.stop.wait, task_status=task_status)
        except* Exception as error:
            server.error = error
        server.died.set()

    async with trio.open_nursery() as nursery:
        (bind,) = await nursery.start(run)
        server.port = int(bind.rsplit(":", 1)[1])
        yield server
        server.stop.set()


class Application:
    """Greets over HTTP, echoes over WebSocket, and remembers the events that it gets."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.over = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await getattr(self, scope["type"])(scope, receive, send)

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await self.talk(receive, send)

    async def talk(self, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "websocket.disconnect":
            self.events.append(event)
            await send({**event, "type": "websocket.send"})
        self.ended.append(event)
        self.over.set()


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = await stream.receive_some()
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


async def read_all(stream: trio.SocketStream) -> bytes:
    """The data until the server closes or resets the connection."""
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, size: bytes | None = None
) -> bytes:
    """A frame of a client, masked with zeros. Reserved bits or a wrong size make it invalid."""
    if size is None:
        length = len(payload)
        if length < 126:
            size = bytes((0x80 | length,))
        elif length < 65_536:
            size = bytes((0x80 | 126,)) + struct.pack("!H", length)
        else:
            size = bytes((0x80 | 127,)) + struct.pack("!Q", length)
    return bytes((0x80 * fin | reserved | opcode,)) + size + bytes(4) + payload


def close_code(data: bytes) -> int | None:
    """The code of the close frame at the end of the server's data; None without one."""
    while data:
        opcode, size = data[0] & 15, data[1]
        assert size < 126
        if opcode == 8:
            return int.from_bytes(data[2:4], "big")
        data = data[2 + size :]
    return None


class Http1WebSocket:
    """A WebSocket over HTTP/1.1 that sends the bytes of a test as they are."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    @classmethod
    async def open(cls, server: Server, path: bytes = b"/", headers: bytes = b"") -> Http1WebSocket:
        stream = await server.connect()
        await stream.send_all(HANDSHAKE % (path, headers))
        head = await read_until(stream, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return cls(stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        return await self.stream.receive_some()

    async def rest(self) -> bytes:
        """The data until the server closes or resets the connection."""
        return await read_all(self.stream)

    async def aclose(self) -> None:
        await self.stream.aclose()


class Http2:
    """A client of HTTP/2, with prior knowledge."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        # Nothing is validated, so that everything can be sent.
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.events: list[h2.events.Event] = []

    @classmethod
    async def open(cls, server: Server) -> Http2:
        client = cls(await server.connect())
        client.h2.initiate_connection()
        await client.flush()
        return client

    async def __aenter__(self) -> Http2:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.stream.aclose()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def request(self, *headers: tuple[bytes, bytes], end: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, list(headers), end_stream=end)
        await self.flush()
        return number

    async def until(self, kind: type[h2.events.Event], stream_id: int | None = None) -> Any:
        """Read until there is such an event; None if the server closes before."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream_id in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.events += self.h2.receive_data(data)
            await self.flush()

    async def status(self, stream_id: int) -> int:
        event = await self.until(h2.events.ResponseReceived, stream_id)
        return int(dict(event.headers)[b":status"])

    async def websocket(self, path: bytes = b"/") -> Http2WebSocket:
        await self.until(h2.events.RemoteSettingsChanged)
        number = await self.request(
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"localhost"),
            (b"sec-websocket-version", b"13"),
            end=False,
        )
        assert await self.status(number) == 200
        return Http2WebSocket(self, number)


class Http2WebSocket:
    """A WebSocket over HTTP/2 that sends the bytes of a test as they are."""

    def __init__(self, client: Http2, number: int) -> None:
        self.client = client
        self.number = number

    @classmethod
    async def open(cls, server: Server, path: bytes = b"/") -> Http2WebSocket:
        return await (await Http2.open(server)).websocket(path)

    async def send(self, data: bytes) -> None:
        self.client.h2.send_data(self.number, data)
        await self.client.flush()

    async def receive(self) -> bytes:
        event = await self.client.until(h2.events.DataReceived, self.number)
        return b"" if event is None else event.data

    async def rest(self) -> bytes:
        """The data until the server ends the stream."""
        await self.client.until(h2.events.StreamEnded, self.number)
        return b"".join(event.data for event in self.client.events if isinstance(event, h2.events.DataReceived))

    async def aclose(self) -> None:
        await self.client.stream.aclose()


GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"))

open_h1 = Http1WebSocket.open
open_h2 = Http2WebSocket.open
serving_ours = partial(serving, OURS)
serving_bare = partial(serving, BARE)
