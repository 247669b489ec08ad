"""Frames and responses that hardly move, over HTTP/1.1 and TLS: the client is cut, and no other."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.server import statistics

from .clients import HANDSHAKE, Application, close_code, frame, read_all, read_until, serving_ours
from .tables import TRANSPORTS

over = pytest.mark.parametrize("transport", TRANSPORTS)
Certificate = tuple[Path, Path]


def options_for(transport: str, certificate: Certificate) -> dict[str, str]:
    return {} if transport == "tcp" else {"certfile": str(certificate[0]), "keyfile": str(certificate[1])}


async def connect(server: Any, transport: str, certificate: Certificate) -> Any:
    stream = await server.connect()
    if transport == "tcp":
        return stream
    context = ssl.create_default_context(cafile=str(certificate[0]))
    tls = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
    await tls.do_handshake()
    return tls


async def open_websocket(server: Any, transport: str, certificate: Certificate, path: bytes = b"/") -> Any:
    stream = await connect(server, transport, certificate)
    await stream.send_all(HANDSHAKE % (path, b""))
    assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return stream


@asynccontextmanager
async def drained(server: Any, transport: str = "tcp", certificate: Any = None) -> AsyncIterator[Any]:
    """A WebSocket whose messages are read and dropped."""
    async with await open_websocket(server, transport, certificate) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(read_all, stream)
        yield stream
        nursery.cancel_scope.cancel()


class Beside(Application):
    """Notes no events of the healthy client."""

    def __init__(self) -> None:
        super().__init__()
        self._healthy = Application()

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/healthy":
            await self._healthy.websocket(scope, receive, send)
        else:
            await super().websocket(scope, receive, send)


@asynccontextmanager
async def served_beside(server: Any, transport: str, certificate: Certificate) -> AsyncIterator[None]:
    """A WebSocket that gets an answer every ten seconds of the block, and after it."""
    over = trio.Event()

    async def talk(stream: Any) -> None:
        last = False
        while not last:
            last = over.is_set()
            await stream.send_all(frame(1, b"there?"))
            await read_until(stream, b"\x81\x06there?")
            with trio.move_on_after(10):
                await over.wait()

    stream = await open_websocket(server, transport, certificate, b"/healthy")
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(talk, stream)
        yield
        over.set()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await trio.sleep(1)


async def drip(stream: Any, data: bytes, every: float) -> bytes:
    """Send a byte at a time, until the server closes; returns the server's bytes."""
    received = b""

    async def read() -> None:
        nonlocal received
        received = await read_all(stream)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(every)
        await trio.sleep_forever()
    return received


@over
@pytest.mark.parametrize("size", [100, 2_000], ids=["of 100 bytes", "of 2,000 bytes"])
async def test_frame_that_drips_is_cut(
    size: int, transport: str, certificate: Certificate, clock: trio.testing.MockClock
) -> None:
    application = Beside()
    async with (
        serving_ours(application, **options_for(transport, certificate)) as server,
        served_beside(server, transport, certificate),
    ):
        begun = trio.current_time()
        async with await open_websocket(server, transport, certificate) as stream:
            received = await drip(stream, frame(1, b"x" * size), 15.0)
        assert 60 <= trio.current_time() - begun < 90
        assert statistics().ended == {"closed 1008": 1}
        await application.over.wait()
    assert close_code(received) == 1008
    assert received.endswith(b"expected a frame in 60 seconds and one for 500 bytes")
    assert application.ended[0]["code"] == 1008
    assert application.events == []


@over
async def test_long_frame_at_a_modest_rate_is_taken(
    transport: str, certificate: Certificate, clock: trio.testing.MockClock
) -> None:
    application = Application()
    options = options_for(transport, certificate)
    async with serving_ours(application, **options) as server, drained(server, transport, certificate) as stream:
        data = frame(2, b"x" * 100_000)
        for start in range(0, len(data), 10_000):  # 667 bytes a second, for 150 seconds
            await stream.send_all(data[start : start + 10_000])
            await trio.sleep(15)
        await until(lambda: application.events)
    assert len(application.events[0]["bytes"]) == 100_000


async def test_each_frame_has_its_own_time(clock: trio.testing.MockClock, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"BODY_TIMEOUT": 20}
    application = Application()
    async with serving_ours(application) as server, drained(server) as stream:
        data = b"".join(frame(0 if number else 1, b"ab", fin=number == 5) for number in range(6))
        sizes = [1, *[8] * 5, 7]  # the rest of a frame comes with the first byte of the next
        for size in sizes:
            part, data = data[:size], data[size:]
            await stream.send_all(part)
            await trio.sleep(15)
        await until(lambda: application.events)
    assert application.events[0]["text"] == "ab" * 6


@pytest.mark.slow
@pytest.mark.time_limit(300)
async def test_frame_behind_a_slow_application_is_not_late(clock: trio.testing.MockClock) -> None:
    class Sleeps(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await trio.sleep(300)  # its queue is full, and the connection is not read
            await super().talk(receive, send)

    application = Sleeps()
    async with serving_ours(application, max_app_queue_size=2) as server, drained(server) as stream:
        data = frame(1, b"hello")
        await stream.send_all(data * 3 + data[:4])
        await trio.sleep(20)
        await stream.send_all(data[4:])
        await until(lambda: len(application.events) == 4)


@over
@pytest.mark.parametrize("parts", [1, 1_000], ids=["in one part", "in 1,000 parts"])
async def test_response_that_is_never_read_is_cut(
    parts: int, transport: str, certificate: Certificate, clock: trio.testing.MockClock
) -> None:
    gone = trio.Event()

    class Large(Beside):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            part = bytes(20_000_000 // parts)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"20000000")]})
            try:
                for number in range(parts):
                    await send({"type": "http.response.body", "body": part, "more_body": number < parts - 1})
                await receive()
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                gone.set()

    async with (
        serving_ours(Large(), **options_for(transport, certificate)) as server,
        served_beside(server, transport, certificate),
    ):
        stream = await connect(server, transport, certificate)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await gone.wait()
        await until(lambda: statistics().connections == 1)
        assert trio.current_time() < 60
        assert statistics().ended == {"slow": 1}
        await trio.aclose_forcefully(stream)


async def send_for_ever(stream: Any) -> None:
    while True:
        await stream.send_all(b"x")
        await trio.sleep(0.5)


@pytest.mark.slow
@over
async def test_body_behind_its_answer_is_dropped_for_half_a_minute(
    transport: str, certificate: Certificate, clock: trio.testing.MockClock
) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    async with (
        serving_ours(Application(), **options_for(transport, certificate)) as server,
        served_beside(server, transport, certificate),
    ):
        async with await connect(server, transport, certificate) as stream:
            await stream.send_all(post)
            for _ in range(20):  # for 10 seconds, and reads the answer only then
                await stream.send_all(b"x")
                await trio.sleep(0.5)
            assert (await read_all(stream)).endswith(b"hello")
        begun = trio.current_time()
        stream = await connect(server, transport, certificate)
        await stream.send_all(post)
        with pytest.raises(trio.BrokenResourceError):
            await send_for_ever(stream)
        assert 30 <= trio.current_time() - begun < 40
        await trio.aclose_forcefully(stream)
