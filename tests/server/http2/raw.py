"""A client of HTTP/2 that sends any frames, also those that no library makes, and says how the server took them."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import hpack
import trio
from h2.errors import ErrorCodes

from tests.server.clients import Application, Server, serving_ours

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

#: Flags. ACK and END_STREAM are the same bit.
ACK = END_STREAM = 1
END_HEADERS, PADDED, PRIORITIZED = 4, 8, 32

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Fields = Iterable[tuple[str, str]]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, size: int | None = None) -> bytes:
    """The bytes of a frame, which may announce another size than it has."""
    length = len(payload) if size is None else size
    return struct.pack("!HBBBL", length >> 8, length & 255, kind, flags, stream) + payload


def request(path: str = "/", method: str = "GET", *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The fields of a request."""
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost"), *more]


def block(fields: Fields) -> bytes:
    """Fields in HPACK, without use of the dynamic table: blocks of one connection may come in any order."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(fields)[1:]  # without the dynamic table's size: the first byte


def headers(stream: int = 1, fields: Fields | None = None, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """A HEADERS frame."""
    return frame(HEADERS, flags, stream, block(request() if fields is None else fields))


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, payload=b"".join(struct.pack("!HL", *pair) for pair in pairs))


def post(stream: int = 1, *more: tuple[str, str], path: str = "/") -> bytes:
    """The head of a request whose body is to follow."""
    return headers(stream, request(path, "POST", *more), END_HEADERS)


def websocket(stream: int = 1, path: str = "/") -> bytes:
    """The handshake of a WebSocket."""
    more = (("sec-websocket-version", "13"),)
    return headers(stream, [(":protocol", "websocket"), *request(path, "CONNECT", *more)], END_HEADERS)


def window_update(increment: int, stream: int = 0) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!L", increment))


class Raw:
    """One connection."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.seen: list[Frame] = []
        self.probes = 0
        self._data = b""
        self._decoder = hpack.Decoder()
        self.statuses: dict[int, list[int]] = {}
        self.bodies: dict[int, bytes] = {}
        self.resets: dict[int, ErrorCodes] = {}
        self.ended: set[int] = set()
        self.goaways: list[tuple[int, ErrorCodes]] = []
        self.windows: dict[int, int] = {}  # the bytes that may be sent, on streams and, at 0, altogether

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def begin(self, *pairs: tuple[int, int]) -> Raw:
        """Send the preface and settings."""
        await self.send(PREFACE + settings(*pairs))
        return self

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed the connection is no error."""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def next(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3], "big"):
            try:
                data = await self.stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._data += data
        size = int.from_bytes(self._data[:3], "big")
        kind, flags, stream = struct.unpack("!BBL", self._data[3:9])
        got = Frame(kind, flags, stream, self._data[9 : 9 + size])
        self._data = self._data[9 + size :]
        self.seen.append(got)
        self._note(got)
        return got

    def _note(self, got: Frame) -> None:
        if got.kind == HEADERS:
            fields = dict(self._decoder.decode(got.payload, raw=True))
            self.statuses.setdefault(got.stream, []).append(int(fields[b":status"]))
        elif got.kind == DATA:
            self.bodies[got.stream] = self.bodies.get(got.stream, b"") + got.payload
        elif got.kind == RST_STREAM:
            self.resets.setdefault(got.stream, ErrorCodes(int.from_bytes(got.payload, "big")))
        elif got.kind == GOAWAY:
            last, code = struct.unpack("!LL", got.payload[:8])
            self.goaways.append((last, ErrorCodes(code)))
        elif got.kind == WINDOW_UPDATE:
            self.windows[got.stream] = self.window(got.stream) + int.from_bytes(got.payload, "big")
        if got.kind in (HEADERS, DATA) and got.flags & END_STREAM:
            self.ended.add(got.stream)

    async def until(self, condition: Any) -> bool:
        """Read until the condition holds; False if the connection ends before."""
        while not condition():
            if await self.next() is None:
                return False
        return True

    async def lives(self) -> bool:
        """Whether the server answers a PING."""
        self.probes += 1
        probe = b"probe%03d" % self.probes
        await self.send(frame(PING, payload=probe))
        return await self.until(lambda: self.seen and self.seen[-1].kind == PING and self.seen[-1].payload == probe)

    async def answer(self, stream: int) -> int | None:
        """The status of a response that has ended; None if it was reset or the connection has ended."""
        await self.until(lambda: stream in self.ended or stream in self.resets)
        return self.statuses[stream][-1] if stream in self.ended else None

    async def get(self, stream: int) -> int | None:
        """Request, and wait for the end of the response."""
        await self.send(headers(stream))
        return await self.answer(stream)

    def count(self, kind: int) -> int:
        """The number of frames of a type that have come."""
        return sum(1 for got in self.seen if got.kind == kind)

    def window(self, stream: int) -> int:
        return self.windows.get(stream, 65_535)

    async def data(self, stream: int, data: bytes, flags: int = 0, padding: int | None = None) -> None:
        """Send a DATA frame, and count it."""
        payload = data if padding is None else bytes([padding]) + data + bytes(padding)
        await self.send(frame(DATA, flags | (PADDED if padding is not None else 0), stream, payload))
        for counted in (0, stream):
            self.windows[counted] = self.window(counted) - len(payload)

    async def fill(self, stream: int) -> None:
        """Send as many bytes as the windows allow."""
        while room := min(16_384, self.window(0), self.window(stream)):
            await self.data(stream, bytes(room))

    async def upload(self, stream: int, size: int, padding: int | None = None) -> None:
        """Send the rest of a request: so many bytes, as the windows allow."""
        extra = 0 if padding is None else padding + 1
        while size:
            assert await self.until(lambda: min(self.window(0), self.window(stream)) > extra)
            part = min(16_384, self.window(0), self.window(stream), size + extra) - extra
            size -= part
            await self.data(stream, bytes(part), 0 if size else END_STREAM, padding)


class Transport:
    """Connects to a server, in clear text with prior knowledge or with TLS and ALPN."""

    def __init__(self, server: Server, certificate: tuple[Path, Path] | None) -> None:
        self.server = server
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.create_default_context(cafile=str(certificate[0]))
            self._tls.set_alpn_protocols(["h2"])

    async def connect(self) -> Raw:
        stream: Any = await self.server.connect()
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_hostname="127.0.0.1", https_compatible=True)
            await stream.do_handshake()
            assert stream.selected_alpn_protocol() == "h2"
        return Raw(stream)


@asynccontextmanager
async def transport(
    application: Application, certificate: tuple[Path, Path] | None = None, **options: Any
) -> AsyncIterator[Transport]:
    files = {} if certificate is None else {"certfile": str(certificate[0]), "keyfile": str(certificate[1])}
    async with serving_ours(application, **files, **options) as server:
        yield Transport(server, certificate)


@asynccontextmanager
async def raw(
    application: Application | None = None, begins: Iterable[tuple[int, int]] = (), **options: Any
) -> AsyncIterator[Raw]:
    """A connection in clear text that has begun with these settings."""
    async with transport(application or Application(), **options) as where, await where.connect() as client:
        yield await client.begin(*begins)


class Reads(Application):
    """Answers when it has read the body, with its length."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        size, parts, more = 0, 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            size, parts = size + len(event["body"]), parts + 1
            more = event["more_body"]
        self.events.append({"size": size, "parts": parts})
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
