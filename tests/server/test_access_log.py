"""The access log; and clients leave no traceback, whatever they do."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from django.test import override_settings
from hypercorn.config import Config
from hypercorn.logging import Logger

from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.log import ConnectionFilter
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import serve
from trio_channels.server.access_log import Atoms, ServerLog, use_our_log
from trio_channels.sync import sync_to_async

from ..integration.server.conftest import Server, config_for_tests
from ..runner.clients import RawClient, connected

logger = logging.getLogger("tests.application")


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await sync_to_async(logger.info)("in a thread")
        await self.send_response(200, b"hello")


class Flood(AsyncWebsocketConsumer):
    """Answers a message with endless messages."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        while True:
            await self.send(bytes_data=bytes(10_000))


@asynccontextmanager
async def served(http: Any = Page.as_asgi(), **options: Any) -> AsyncIterator[Server]:  # noqa: B008 - never changed
    """A server in this Trio run."""
    async with trio.open_nursery() as nursery:
        router = ProtocolTypeRouter({"http": http, "websocket": Flood.as_asgi()})
        stop = trio.Event()
        (bind,) = await nursery.start(partial(serve, router, config_for_tests(**options), shutdown_trigger=stop.wait))
        yield Server(int(bind.rsplit(":", 1)[1]))
        stop.set()


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The access log is switched on, as by ``LOGGING``."""
    with caplog.at_level(logging.INFO, "trio_channels.access"):
        yield caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.name == "trio_channels.access"]


async def until(condition: Any) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


# -- the access log ---------------------------------------------------------------------------------------------------


async def test_request_is_one_line_with_the_connections_number(access: pytest.LogCaptureFixture) -> None:
    async with served() as server:
        await server.request("GET", "/a%0Ab/?c=%0A")
        await until(lambda: lines(access))
    (line,) = lines(access)
    assert '"GET /a\\nb/ 1.1" 200 - ' in line
    assert "\n" not in line
    assert line.rpartition("#")[2].isdecimal()


async def test_websocket_has_a_line_at_its_start_and_end(
    access: pytest.LogCaptureFixture,
) -> None:
    async with served() as server:
        async with server.websocket("/chat/") as client:
            await client.aclose(code=4321)
        await until(lambda: len(lines(access)) == 2)
    begin, end = lines(access)
    assert '"GET /chat/ 1.1" 101 ' in begin
    assert '"GET /chat/ 1.1" 4321 ' in end
    assert begin.rpartition("#")[2] == end.rpartition("#")[2]


@pytest.mark.parametrize(("begins", "said"), [(True, "200 19"), (False, "- -")])
async def test_client_that_leaves_first_has_the_status_that_it_got(
    begins: bool, said: str, access: pytest.LogCaptureFixture
) -> None:
    class Endless(AsyncHttpConsumer):
        cancel_on_disconnect = True

        async def handle(self, body: bytes) -> None:
            if begins:
                await self.send_headers(headers=[(b"content-length", b"19")])
                await self.send_body(bytes(19), more_body=True)
            asked.set()
            await trio.sleep_forever()

    asked = trio.Event()
    async with served(http=Endless.as_asgi()) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
            await client.send_all(b"GET /files/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asked.wait()
        await until(lambda: lines(access))
    assert f'"GET /files/ 1.1" {said} ' in lines(access)[0]


async def test_it_is_off_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served() as server:
        await server.request("GET", "/")
    assert lines(caplog) == []


async def test_log_records_have_the_connections_number(
    access: pytest.LogCaptureFixture,
) -> None:
    access.set_level(logging.INFO, "tests.application")
    logger.addFilter(only := ConnectionFilter())
    try:
        async with served() as server:
            await server.request("GET", "/")
            await until(lambda: lines(access))
    finally:
        logger.removeFilter(only)
    (record,) = [record for record in access.records if record.name == "tests.application"]
    assert lines(access)[0].endswith(f"#{record.connection}")  # type: ignore[attr-defined]


async def test_format_is_hypercorns_option(access: pytest.LogCaptureFixture) -> None:
    async with served(access_log_format="%(m)s %(U)s %({x-mine}i)s %({content-type}o)s %(nothing)s") as server:
        await server.request("GET", "/", [(b"x-mine", b'a"b')])
        await until(lambda: lines(access))
    assert lines(access) == ['GET / a\\"b - -']


@pytest.fixture
def quiet() -> Iterator[logging.Logger]:
    """The access logger, to be configured."""
    ours = logging.getLogger("trio_channels.access")
    yield ours
    for handler in ours.handlers:
        handler.close()
    ours.handlers, ours.propagate = [], True
    ours.setLevel(logging.NOTSET)


async def test_hypercorns_option_accesslog_says_where_to(quiet: logging.Logger, tmp_path: Any) -> None:
    async with served(accesslog=str(tmp_path / "access.log")) as server:
        await server.request("GET", "/page/")
        await until(lambda: "GET /page/" in (tmp_path / "access.log").read_text())


def test_logger_given_to_hypercorn_is_used() -> None:
    config = Config()
    config.accesslog = logging.getLogger("tests.access")
    assert ServerLog(config).access_logger is config.accesslog


def test_logger_class_of_ones_own_stays() -> None:
    class Mine(Logger):
        pass

    config = Config()
    config.logger_class = Mine
    use_our_log(config)
    assert type(config.log) is Mine


def test_access_line_fields_exist_without_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_CHANNELS_TESTS", "yes")
    atoms = Atoms({"type": "http", "method": "GET", "path": "/", "query_string": b"a=1"}, None, 1.5)
    assert [atoms[name] for name in ("h", "s", "st", "b", "i")] == ["-", "-", "-", "-", "-"]
    assert [atoms[name] for name in ("T", "D", "L", "Uq")] == [1, 1500000, "1.500000", "/?a=1"]
    assert [atoms[name] for name in ("{trio_channels_tests}e", "{nothing}e", "{host}i")] == ["yes", "-", "-"]


def test_secrets_are_masked_wherever_a_format_names_them() -> None:
    headers = [(b"referer", b"http://a/?token=hush"), (b"X-Forwarded-Uri", b"/?key=hush"), (b"accept", b"?key=1")]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"a=1&token=hush", "headers": headers}
    atoms = Atoms(scope, {"status": 302, "headers": [(b"location", b"/?sid=hush")]}, 1.5)
    shown = [atoms[name] for name in ("q", "Uq", "R", "f", "{Referer}i", "{x-forwarded-uri}i", "{location}o")]
    assert shown == [
        "a=1&token=***",
        "/?a=1&token=***",
        "GET /?a=1&token=*** -",
        "http://a/?token=***",
        "http://a/?token=***",
        "/?key=***",
        "/?sid=***",
    ]
    assert atoms["{accept}i"] == "?key=1"
    with override_settings(TRIO_CHANNELS={"MASKED_PARAMETERS": ["a"]}):
        assert Atoms(scope, None, 1.5)["q"] == "a=***&token=hush"


# -- no traceback for acts of clients ---------------------------------------------------------------------------------

WEBSOCKET = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
ACCEPTABLE = WEBSOCKET + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
MASK = b"\0\0\0\0"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish that is no frame at all",
        WEBSOCKET + b"\r\n",
        ACCEPTABLE + b"\x81\x82" + MASK + b"\xff\xff",
        ACCEPTABLE + b"\xff\xff\xff\xff",
        ACCEPTABLE + b"\x81\x81" + MASK + b"a",
    ],
)
@pytest.mark.parametrize("end", ["reset", "orderly"])
async def test_what_a_client_does_leaves_no_traceback(data: bytes, end: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with served(graceful_timeout=0.1) as server:
        stream = await connected(server.port)
        async with stream:
            await stream.send_all(data)
            if end == "reset":  # closing sends RST
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                await stream.send_eof()
                with trio.move_on_after(0.05):
                    while await stream.receive_some(65_536):
                        pass
        assert (await server.request("GET", "/")).status == 200
    guilty = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in guilty] == []


async def test_client_that_vanishes_mid_send_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with served(graceful_timeout=0.1) as server:
        async with await connected(server.port) as stream:
            client = RawClient(stream)
            await client.shake_hands("/")
            await client.say("begin")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert (await server.request("GET", "/")).status == 200
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
