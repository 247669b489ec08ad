"""Django's views behind a real hypercorn, asked through real sockets."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from hypercorn.config import Config
from hypercorn.trio import serve

from trio_channels._http.handler import DjangoHandler

from .common import Signals, until

notes: list[str] = []


async def poll(request: HttpRequest) -> HttpResponse:
    notes.append("entered")
    try:
        await trio.sleep_forever()
    finally:
        notes.append("ended")
    return HttpResponse()


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        try:
            while True:
                yield "x" * 1_000
        finally:
            notes.append("ended")

    return StreamingHttpResponse(parts())


def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1_000
        finally:
            notes.append("ended")

    return StreamingHttpResponse(parts())


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


urlpatterns = [path(f"{view.__name__}/", view) for view in (poll, stream, async_stream, file)]


class Server:
    """Sends one request to its hypercorn."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def ask(self, method: str, where: str, headers: str = "", body: bytes = b"") -> trio.SocketStream:
        client = await trio.open_tcp_stream("127.0.0.1", self._port)
        await client.send_all(f"{method} {where} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body)
        return client


@pytest.fixture
async def server(project: None, nursery: trio.Nursery) -> AsyncIterator[Server]:
    notes.clear()
    config = Config()
    config.bind, config.errorlog = ["127.0.0.1:0"], None
    (address,) = await nursery.start(functools.partial(serve, DjangoHandler(), config, mode="asgi"))
    yield Server(int(address.rpartition(":")[2]))
    nursery.cancel_scope.cancel()


async def read(client: trio.SocketStream, enough: int) -> bytes:
    """At least so many bytes, or all."""
    data = b""
    with trio.fail_after(30):
        while len(data) < enough and (part := await client.receive_some(65_536)):
            data += part
    return data


async def test_async_view_is_cancelled_when_its_socket_is_closed(server: Server, sent_signals: Signals) -> None:
    client = await server.ask("GET", "/poll/")
    await until(lambda: notes)
    await client.aclose()
    await until(lambda: sent_signals.sent == ["started", "finished"])
    assert notes == ["entered", "ended"]


@pytest.mark.parametrize("where", ["/stream/", "/async_stream/"])
async def test_endless_stream_ends_when_its_socket_is_closed(where: str, server: Server, sent_signals: Signals) -> None:
    client = await server.ask("GET", where)
    assert (await read(client, 200_000)).startswith(b"HTTP/1.1 200")
    await client.aclose()
    await until(lambda: sent_signals.sent == ["started", "finished"])
    assert notes == ["ended"]


@pytest.mark.parametrize("where", ["/stream/", "/async_stream/", "/file/"])
async def test_head_of_an_endless_stream_ends(where: str, server: Server, sent_signals: Signals) -> None:
    client = await server.ask("HEAD", where)
    assert (await read(client, 100)).startswith(b"HTTP/1.1 200")
    await until(lambda: sent_signals.sent == ["started", "finished"])
    await client.aclose()


async def test_upload_that_is_too_large_is_told_so(server: Server) -> None:
    with override_settings(TRIO_CHANNELS={"MAX_UPLOAD_SIZE": 1_000}):
        client = await server.ask("POST", "/file/", "Content-Length: 100000\r\n", b"x" * 50_000)
        assert (await read(client, 100)).startswith(b"HTTP/1.1 413")
        await client.aclose()
