"""Real hypercorn in the test's own Trio run, and a small HTTP client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlencode

import h11
import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from trio_channels.routing import ProtocolTypeRouter

#: Seconds after which something has gone wrong; no test is about time.
SAFETY = 30.0

Headers = Iterable[tuple[bytes, bytes]]


class Response(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def cookies(self) -> dict[str, str]:
        parsed: SimpleCookie = SimpleCookie()
        for name, value in self.headers:
            if name == b"set-cookie":
                parsed.load(value.decode())
        return {name: morsel.value for name, morsel in parsed.items()}


class Server:
    """Where a server listens."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.stop = trio.Event()

    @asynccontextmanager
    async def websocket(self, path: str, **options: Any) -> AsyncIterator[WebSocketConnection]:
        """A client of trio-websocket; not by its open_websocket(), which leaves a rejected client's socket open."""
        rejection: BaseException | None = None
        try:
            async with (
                trio.open_nursery() as nursery,
                await trio.open_tcp_stream("127.0.0.1", self.port) as stream,
                await wrap_client_stream(nursery, stream, "127.0.0.1", path, **options) as client,
            ):
                yield client
        except* ConnectionRejected as rejected:
            rejection = rejected.exceptions[0]
        if rejection is not None:  # Python 3.11.2 raises a group again out of the except block
            raise rejection from None

    async def send_request(
        self, method: str, path: str, headers: Headers = (), body: bytes = b""
    ) -> tuple[trio.SocketStream, h11.Connection]:
        """Open a connection of its own for one request, and send it."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        parser = h11.Connection(h11.CLIENT)
        wanted = [(b"host", b"localhost"), (b"connection", b"close"), *headers]
        if body:
            wanted.append((b"content-length", b"%d" % len(body)))
        data = parser.send(h11.Request(method=method, target=path, headers=wanted)) or b""
        if body:
            data += parser.send(h11.Data(data=body)) or b""
        data += parser.send(h11.EndOfMessage()) or b""
        await stream.send_all(data)
        return stream, parser

    async def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Response:
        """One request and its whole response."""
        stream, parser = await self.send_request(method, path, headers, body)
        start: h11.Response | None = None
        content = bytearray()
        async with stream:
            while not isinstance(event := await next_event(stream, parser), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    start = event
                elif isinstance(event, h11.Data):
                    content += event.data
                else:
                    assert isinstance(event, h11.InformationalResponse), event
        assert start is not None
        return Response(start.status_code, list(start.headers), bytes(content))

    async def post(self, path: str, headers: Headers = (), **fields: str) -> Response:
        """Post a form."""
        kind = (b"content-type", b"application/x-www-form-urlencoded")
        return await self.request("POST", path, [kind, *headers], urlencode(fields).encode())


async def next_event(stream: trio.SocketStream, parser: h11.Connection) -> Any:
    """The next event of an HTTP response."""
    while (event := parser.next_event()) is h11.NEED_DATA:
        parser.receive_data(await stream.receive_some())
    return event


def config_for_tests(**options: Any) -> Config:
    """A configuration that logs to a logger that pytest sees."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("tests.integration.server")
    config.graceful_timeout = 1
    for name, value in options.items():
        setattr(config, name, value)
    return config


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve(bare_hypercorn: Callable[[], None]) -> AsyncIterator[Serve]:
    """``server = await serve(application)``: stopped as by a signal when the test has ended."""
    servers: list[Server] = []

    async with trio.open_nursery() as nursery:

        async def start(application: Any, **options: Any) -> Server:
            server = Server()
            if not isinstance(application, ProtocolTypeRouter):  # which answers lifespan
                application = ProtocolTypeRouter({"http": application, "websocket": application})

            bare_hypercorn()

            async def run(task_status: trio.TaskStatus[Any]) -> None:
                await hypercorn.trio.serve(
                    application,
                    config_for_tests(**options),
                    shutdown_trigger=server.stop.wait,
                    task_status=task_status,
                )

            (bind,) = await nursery.start(run)
            server.port = int(bind.rsplit(":", 1)[1])
            servers.append(server)
            return server

        yield start
        for server in servers:
            server.stop.set()


@pytest.fixture(autouse=True)
async def safety() -> AsyncIterator[None]:
    """A deadline for the whole test."""
    with trio.fail_after(SAFETY):
        yield
