"""Bodies of HTTP/1.1 requests: announced ones, ``Expect: 100-continue``, refusals, and how a connection ends then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.server import statistics

from .clients import Application, read_all, read_until
from .tables import TRANSPORTS, access_log, served

MOST = 100


def length_of_body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"got {len(request.body)}")


urlpatterns = [path("upload", length_of_body)]


class Takes(AsyncHttpConsumer):
    max_body_size = MOST

    async def handle(self, body: bytes) -> None:
        await self.send_response(200, b"got %d" % len(body))


class Behind(Application):
    """WebSockets are echoed, and requests are another application's."""

    def __init__(self, application: Any) -> None:
        super().__init__()
        self.application = application

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await self.application(scope, receive, send)


@pytest.fixture(params=["view", "consumer"])
def application(request: pytest.FixtureRequest) -> Iterator[Application]:
    options = {"MAX_UPLOAD_SIZE": MOST, "CLOSE_TIMEOUT": 0.01}
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["a"], TRIO_CHANNELS=options):
        yield Behind(get_asgi_application() if request.param == "view" else Takes.as_asgi())


def post(*headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /upload HTTP/1.1", b"Host: a", *headers, b"", b""])


EXPECT, CLOSE = b"Expect: 100-continue", b"Connection: close"


def length(number: int) -> bytes:
    return b"Content-Length: %d" % number


over = pytest.mark.parametrize("transport", TRANSPORTS)


@over
@pytest.mark.parametrize(
    "headers",
    [(length(MOST + 1),), (length(10**18),), (length(MOST + 1), EXPECT), (length(10**9), CLOSE)],
    ids=["one byte more", "no end", "asks", "closes"],
)
async def test_announced_body_is_413_before_it_is_read(
    headers: tuple[bytes, ...], application: Application, transport: str, certificate: tuple[Path, Path]
) -> None:
    with access_log() as log:
        async with served(transport, application, certificate) as connect, await connect() as stream:
            await stream.send_all(post(*headers))  # and nothing of the body
            head = await read_until(stream, b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 413")  # no 100 before
            assert statistics().refusals == {413: 1}
    assert log.lines == ["POST /upload 1.1 413"]


@over
async def test_client_that_sends_a_refused_body_gets_the_413(
    application: Application, transport: str, certificate: tuple[Path, Path]
) -> None:
    async with served(transport, application, certificate) as connect, await connect() as stream:
        await stream.send_all(post(length(2**20)))
        await stream.send_all(bytes(2**20))  # it reads only now
        assert (await read_all(stream)).startswith(b"HTTP/1.1 413")


@over
async def test_body_that_grows_too_long_is_413(
    application: Application, transport: str, certificate: tuple[Path, Path]
) -> None:
    with access_log() as log:
        async with served(transport, application, certificate) as connect, await connect() as stream:
            await stream.send_all(post(b"Transfer-Encoding: chunked") + (b"32\r\n" + b"x" * 50 + b"\r\n") * 3)
            assert (await read_all(stream)).startswith(b"HTTP/1.1 413")
            assert statistics().refusals == {413: 1}
    assert log.lines == ["POST /upload 1.1 413"]


@over
async def test_body_is_asked_for_when_it_is_awaited(
    application: Application, transport: str, certificate: tuple[Path, Path]
) -> None:
    with access_log() as log:
        async with served(transport, application, certificate) as connect, await connect() as stream:
            await stream.send_all(post(length(MOST), EXPECT))
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
            await stream.send_all(bytes(MOST))
            answer = await read_until(stream, b"got 100")
            assert answer.startswith(b"HTTP/1.1 200")
            await stream.send_all(post(length(1), CLOSE) + b"x")  # the connection goes on
            assert b"got 1" in await read_all(stream)
            assert statistics().refusals == {}
    assert log.lines == ["POST /upload 1.1 200"] * 2


@over
async def test_body_that_comes_unasked_is_taken(
    application: Application, transport: str, certificate: tuple[Path, Path]
) -> None:
    async with served(transport, application, certificate) as connect, await connect() as stream:
        await stream.send_all(post(length(5), EXPECT, CLOSE) + b"hello")
        assert b"got 5" in await read_all(stream)


@over
async def test_answer_instead_of_a_100_closes(transport: str, certificate: tuple[Path, Path]) -> None:
    async with served(transport, Application(), certificate) as connect, await connect() as stream:
        await stream.send_all(post(length(5), EXPECT))
        answer = await read_all(stream)  # the client may send the body, or the next request
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()


async def test_application_that_waits_twice_asks_once(certificate: tuple[Path, Path]) -> None:
    got = trio.Event()

    class Waits(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["more_body"]:
                got.set()
            await super().http(scope, receive, send)

    async with served("tcp", Waits(), certificate) as connect, await connect() as stream:
        await stream.send_all(post(length(2), EXPECT, CLOSE))
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"a")
        await got.wait()
        await stream.send_all(b"b")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200")
