"""Runs a table: each row is sent on a connection of its own, over TCP or TLS, beside a client that behaves."""

from __future__ import annotations

import logging
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio

from trio_channels.server import statistics

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


class Row(NamedTuple):
    """An input and its outcome: a line of the access log for each answer, and whether the connection lives."""

    data: bytes
    lines: list[str]
    lives: bool


def row(data: bytes, *lines: str, lives: bool) -> Row:
    return Row(data, list(lines), lives)


class AccessLog(logging.Handler):
    """The lines of a server: the request and its status."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        matched = re.fullmatch(r'[\w.:]+ "(.*)" (\d+|-) \S+ \S+ #[\d-]+', record.getMessage())
        assert matched, record.getMessage()
        if "/neighbour" not in matched[1]:
            self.lines.append(f"{matched[1]} {matched[2]}")


@contextmanager
def access_log() -> Iterator[AccessLog]:
    """The access log, turned on before a server starts."""
    logger, handler = logging.getLogger("trio_channels.access"), AccessLog()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@asynccontextmanager
async def served(
    transport: str, application: Application, certificate: tuple[Path, Path], **options: Any
) -> AsyncIterator[Connect]:
    """A server; yields a function that connects. The server answers another client in the block, a new one after."""
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
            answer = await read_until(stream, b"there?")
            assert answer.replace(b"\x89\x00", b"") == b"\x81\x06there?"  # it may be pinged meanwhile

    async with await connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(HANDSHAKE % (b"/neighbour", b""))
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        nursery.start_soon(talk, stream)
        yield
        over.set()


async def check(the: Row, transport: str, certificate: tuple[Path, Path], **options: Any) -> Notes:
    """Send a row's input with the probe behind it, and compare the answers, the log, and the application's requests."""
    application = Notes()
    with access_log() as log:
        async with served(transport, application, certificate, **options) as connect:
            async with await connect() as stream:
                await stream.send_all(the.data + PROBE)
                answers = await read_all(stream)
            refusals = statistics().refusals
    expected = [*the.lines, "GET /probe 1.1 200"] if the.lives else the.lines
    assert log.lines == expected
    assert [status.decode() for status in _STATUS.findall(answers)] == [line.split()[-1] for line in expected]
    refused = Counter(int(line.split()[-1]) for line in expected if not line.endswith(" 200"))
    assert refusals == refused
    ran = [f"{method} {path}" for method, path, *_ in application.requests]
    assert ran == [line.rsplit(" ", 2)[0] for line in expected if line.endswith(" 200")]
    if not the.lives:
        assert b"connection: close" in answers.lower()
    return application
