"""Runs a table: each row is sent on a connection of its own, over TCP or TLS, beside a client that behaves."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from .clients import HANDSHAKE, Application, frame, read_all, read_until, serving_ours

Connect = Callable[[], Awaitable[Any]]

TRANSPORTS = ("tcp", "tls")

#: Sent behind each row's input; answered if the connection lives.
PROBE = b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


class Notes(Application):
    """Greets, and notes each whole request: its method, path, query, host and body."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str, str, str, bytes]] = []

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode()
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event["body"]
            more = event["more_body"]
        self.requests.append((scope["method"], scope["path"], scope["query_string"].decode(), host, body))
        await super().http(scope, receive, send)


class Outcome(NamedTuple):
    """What a row does: the statuses of the answers, whether the connection lives, and the requests that ran."""

    answers: list[int]
    lives: bool
    ran: list[tuple[str, str]]


@asynccontextmanager
async def served(
    transport: str, application: Application, certificate: tuple[Path, Path], **options: Any
) -> AsyncIterator[Connect]:
    """A server, and a function that connects to it. In the block, a client beside is answered; after it, a new one."""
    if transport == "tls":
        options |= {"certfile": str(certificate[0]), "keyfile": str(certificate[1])}
    context = ssl.create_default_context(cafile=str(certificate[0]))
    async with serving_ours(application, **options) as server:

        async def connect() -> Any:
            stream = await server.connect()
            if transport != "tls":
                return stream
            tls = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
            await tls.do_handshake()
            return tls

        async with neighbour(connect):
            yield connect
        async with neighbour(connect):
            pass


@asynccontextmanager
async def neighbour(connect: Connect) -> AsyncIterator[None]:
    """A WebSocket that is answered through the block, and once after it."""
    over = trio.Event()

    async def talk(stream: Any) -> None:
        last = False
        while not last:
            last = over.is_set()
            await stream.send_all(frame(1, b"there?"))
            assert await read_until(stream, b"there?") == b"\x81\x06there?"

    async with await connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(HANDSHAKE % (b"/neighbour", b""))
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        nursery.start_soon(talk, stream)
        yield
        over.set()


async def exchange(connect: Connect, application: Notes, data: bytes) -> Outcome:
    """Send a row's input, with the probe behind it, and read until the server closes."""
    application.requests.clear()
    async with await connect() as stream:
        await stream.send_all(data + PROBE)
        answers = [int(status) for status in _STATUS.findall(await read_all(stream))]
    ran = [(method, path) for method, path, *_ in application.requests]
    lives = ("GET", "/probe") in ran
    if lives:
        answers.pop()
        ran.remove(("GET", "/probe"))
    return Outcome(answers, lives, ran)
