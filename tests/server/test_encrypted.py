"""TLS, end to end: our encrypted connections behave as our plain ones."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from trio_websocket import open_websocket_url

from trio_channels.server import statistics

from ..certificate import make_certificate
from .clients import GET, Application, Http2, Server, close_code, frame, read_all, read_until, serving_ours
from .test_defects import Floods


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Encrypted:
    """A server and the TLS context of its clients."""

    def __init__(self, server: Server, certificate: Path) -> None:
        self.server = server
        self.context = ssl.create_default_context(cafile=str(certificate))

    async def connect(self, *protocols: str) -> Any:
        """A TLS connection, which has not shaken hands yet."""
        self.context.set_alpn_protocols(list(protocols))
        stream = await self.server.connect()
        return trio.SSLStream(stream, self.context, server_hostname="127.0.0.1", https_compatible=True)

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.server.port}/"


@asynccontextmanager
async def encrypted(
    certificate: tuple[Path, Path], application: Application, **options: Any
) -> AsyncIterator[Encrypted]:
    files = {"certfile": str(certificate[0]), "keyfile": str(certificate[1])}
    async with serving_ours(application, **files, **options) as server:
        yield Encrypted(server, certificate[0])


async def test_request_is_answered_and_its_scope_says_https(certificate: Any) -> None:
    class Notes(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            self.events.append(scope)
            await super().http(scope, receive, send)

    application = Notes()
    async with encrypted(certificate, application) as server, await server.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200")
        await stream.send_all(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200")
    assert [scope["scheme"] for scope in application.events] == ["https"] * 3


async def test_websocket_talks_and_is_closed_with_its_code(certificate: Any) -> None:
    application = Application()
    async with encrypted(certificate, application) as server:
        async with open_websocket_url(server.url, ssl_context=server.context) as client:
            for text in ("one", "x" * 200_000):
                await client.send_message(text)
                assert await client.get_message() == text
            await client.aclose(4001, "bye")
        await application.over.wait()
    assert application.ended == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]


async def test_http2_is_agreed_on_and_spoken(certificate: Any) -> None:
    async with encrypted(certificate, Application()) as server:
        stream = await server.connect("h2")
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "h2"
        async with Http2(stream) as client:
            client.h2.initiate_connection()
            number = await client.request(*GET, (b":path", b"/"))
            assert await client.status(number) == 200
            assert await client.until(h2.events.StreamEnded, number)


async def test_early_answer_reaches_a_client_that_is_still_sending(certificate: Any) -> None:
    """Closing with something unread resets the connection, and the client would lose the answer."""
    async with encrypted(certificate, Application()) as server, await server.connect() as stream:
        await stream.do_handshake()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n"
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                try:
                    await stream.send_all(head + bytes(300_000))
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(send)
            assert (await read_all(stream)).endswith(b"hello")


async def test_a_client_that_does_not_read_is_cut(certificate: Any, clock: trio.testing.MockClock) -> None:
    application = Floods()
    async with encrypted(certificate, application) as server:
        stream = await server.connect()
        await websocket_on(stream)
        await application.over.wait()
        assert isinstance(application.stopped, OSError)
        assert statistics().ended == {"slow": 1}
        await stream.transport_stream.aclose()


async def websocket_on(stream: Any) -> None:
    await stream.send_all(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b"HTTP/1.1 101" in await stream.receive_some()


async def test_what_is_no_tls_ends_its_connection_and_nothing_else(certificate: Any) -> None:
    async with encrypted(certificate, Application()) as server:
        async with await server.server.connect() as plain:
            await plain.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await read_all(plain)
        async with await server.connect() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await read_until(stream, b"hello")


async def test_non_tls_bytes_end_a_websocket(certificate: Any) -> None:
    application = Application()
    async with encrypted(certificate, application) as server:
        stream = await server.connect()
        await websocket_on(stream)
        await stream.transport_stream.send_all(frame(1, b"not encrypted"))
        await application.over.wait()
        await stream.transport_stream.aclose()
    assert application.ended[0]["code"] == 1006


async def test_shutdown_tells_1012(certificate: Any) -> None:
    application = Application()
    async with encrypted(certificate, application) as server, await server.connect() as stream:
        await websocket_on(stream)
        server.server.stop.set()
        assert close_code(await read_all(stream)) == 1012


async def test_connection_too_many_is_closed_before_any_handshake(certificate: Any, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"MAX_CONNECTIONS": 1}
    async with encrypted(certificate, Application()) as server:
        async with open_websocket_url(server.url, ssl_context=server.context), await server.server.connect() as second:
            assert await read_all(second) == b""
        assert statistics().refused == 1
