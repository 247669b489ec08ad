"""Limits of times, rates and numbers, and the answer to a client beyond each."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import h2.events
import h2.exceptions
import pytest
import trio
import trio.testing

from trio_channels.server import statistics
from trio_channels.server.connections import _address
from trio_channels.server.limits import ServerLimits

from .clients import (
    GET,
    HANDSHAKE,
    Application,
    Http2,
    close_code,
    config_for_tests,
    frame,
    open_h1,
    open_h2,
    read_all,
    read_until,
    serving_ours,
)

Clock = trio.testing.MockClock


class Reads(Application):
    """Reads the whole request before it answers."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "http.disconnect":
            self.events.append(event)
            if not event["more_body"]:
                await super().http(scope, receive, send)
                return
        self.ended.append(event)
        self.over.set()


async def drip(stream: trio.SocketStream, data: bytes, *, every: float) -> None:
    for byte in data:
        await stream.send_all(bytes((byte,)))
        await trio.sleep(every)


async def open_and_reset(client: Http2) -> None:
    while True:
        client.h2.reset_stream(await client.request(*GET, (b":path", b"/")))
        await client.flush()
        with trio.move_on_after(0):
            client.events += client.h2.receive_data(await client.stream.receive_some())


# -- time ------------------------------------------------------------------------------------------------------------


async def test_request_whose_head_does_not_come_is_a_408(clock: Clock) -> None:
    async with serving_ours(Application()) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408")
        assert 9 < trio.current_time() < 12
        assert statistics().ended == {"slow request": 1}


async def test_head_in_drops_has_no_longer(clock: Clock) -> None:
    async with serving_ours(Application()) as server, await server.connect() as stream:
        with pytest.raises(trio.BrokenResourceError):
            await drip(stream, b"GET /" + b"a" * 100, every=3)
        assert trio.current_time() < 20


async def test_connection_on_which_nothing_is_asked_is_closed(clock: Clock) -> None:
    async with serving_ours(Application()) as server, await server.connect() as stream:
        assert await read_all(stream) == b""
        assert 9 < trio.current_time() < 12


async def test_connection_is_kept_alive_as_long_as_configured(clock: Clock) -> None:
    async with serving_ours(Application(), keep_alive_timeout=33) as server, await server.connect() as stream:
        for pause in (0, 30, 30):
            await trio.sleep(pause)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200")
        begun = trio.current_time()
        assert await read_all(stream) == b""
        assert 32 < trio.current_time() - begun < 35


async def test_body_that_does_not_come_is_a_408_and_a_disconnect(clock: Clock) -> None:
    application = Reads()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408")
        assert 59 < trio.current_time() < 62
    await application.over.wait()


async def test_body_in_drops_has_no_longer(clock: Clock) -> None:
    async with serving_ours(Reads()) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await drip(stream, b"x" * 100, every=20)
        assert trio.current_time() <= 120


async def test_long_body_at_a_modest_rate_is_taken(clock: Clock) -> None:
    application = Reads()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
        for _ in range(6):
            await stream.send_all(bytes(50_000))
            await trio.sleep(50)
        assert b"hello" in await read_until(stream, b"hello")


@pytest.mark.slow
@pytest.mark.time_limit(300)
async def test_slow_application_is_not_the_clients_fault(clock: Clock) -> None:
    class Sleeps(Reads):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await trio.sleep(500)
            await super().http(scope, receive, send)

    async with serving_ours(Sleeps()) as server, trio.open_nursery() as nursery, await server.connect() as stream:
        nursery.start_soon(
            stream.send_all, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000)
        )
        assert b"hello" in await read_until(stream, b"hello")


async def test_http2_has_the_same_patience(clock: Clock) -> None:
    application = Reads()
    async with serving_ours(application) as server:
        async with await server.connect() as stream:
            await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            await read_all(stream)
            assert trio.current_time() < 12
        async with await Http2.open(server) as client:
            await client.request(*GET, (b":path", b"/"), end=False)
            assert await client.until(h2.events.ConnectionTerminated)
        await application.over.wait()
        async with await Http2.open(server) as client:
            assert await client.status(await client.request(*GET, (b":path", b"/"))) == 200
            assert await client.until(h2.events.ConnectionTerminated)


async def test_tls_handshake_that_does_not_come_ends_the_connection(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for_tests()
    sockets = config.create_sockets()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    monkeypatch.setattr(type(config), "create_ssl_context", lambda _: tls)
    sockets.secure_sockets, sockets.insecure_sockets = sockets.insecure_sockets, []
    monkeypatch.setattr(type(config), "create_sockets", lambda _: sockets)
    async with serving_ours(Application()) as server, await server.connect() as stream:
        assert await read_all(stream) == b""
        assert 9 < trio.current_time() < 12
        assert statistics().ended == {"handshake timeout": 1}


async def test_unanswered_handshake_is_503_and_a_disconnect(clock: Clock) -> None:
    class Sleeps(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            self.ended.append(await receive())

    application = Sleeps()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        assert (await read_all(stream)).startswith(b"HTTP/1.1 503")
        assert 10 < trio.current_time() < 13
        assert statistics().ended == {"not accepted": 1}
    assert application.ended[0]["code"] == 1006


# -- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS"])
async def test_connection_over_the_limit_is_503(key: str, settings: Any) -> None:
    settings.TRIO_CHANNELS = {key: 2}
    async with serving_ours(Application()) as server:
        clients = [await open_h1(server) for _ in range(2)]
        async with await server.connect() as third:
            assert (await read_all(third)).startswith(b"HTTP/1.1 503")
        assert (statistics().connections, statistics().refused) == (2, 1)
        for client in clients:
            await client.send(frame(8))
            await client.rest()
            await client.aclose()
        while statistics().connections:
            await trio.lowlevel.checkpoint()
        await server.still_serves()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("192.0.2.1", 80), "192.0.2.1"),
        (("::ffff:192.0.2.1", 80, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 80, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::/64"),
        (("a name", 80), "a name"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(name: Any, address: str) -> None:
    assert _address(name) == address


@pytest.mark.parametrize("opcode", [1, 9])
@pytest.mark.parametrize("connect", [open_h1, open_h2])
async def test_more_messages_a_second_than_allowed_are_1008(
    connect: Any, opcode: int, settings: Any, clock: Clock
) -> None:
    settings.TRIO_CHANNELS = {"MESSAGES_PER_SECOND": 10}
    application = Application()
    async with serving_ours(application) as server:
        client = await connect(server)
        for _ in range(3):
            await client.send(frame(opcode, b"x") * 9)
            await trio.sleep(1)
        await client.send(frame(opcode, b"x") * 20)
        answer = await client.rest()
        assert close_code(answer) == 1008
        await client.aclose()
    assert all(event["code"] == 1008 for event in application.ended)


@pytest.mark.parametrize("connect", [open_h1, open_h2])
async def test_pings_amid_a_message_are_limited_too(connect: Any, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"MESSAGES_PER_SECOND": 10}
    application = Application()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(frame(1, b"in p", fin=False) + frame(9, b"x") * 30 + frame(0, b"arts"))
        assert close_code(await client.rest()) == 1008
        await client.aclose()
    assert application.events == []


async def test_http2_rapid_reset_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """CVE-2023-44487."""
    async with serving_ours(Application()) as server:
        async with await Http2.open(server) as client:
            with pytest.raises((h2.exceptions.ProtocolError, trio.BrokenResourceError)):
                await open_and_reset(client)
        await server.still_serves()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- settings --------------------------------------------------------------------------------------------------------


def test_hypercorn_option_goes_before_the_setting(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"PING_INTERVAL": 7, "MAX_MESSAGE_SIZE": 8}
    limits = ServerLimits.of(config_for_tests(graceful_timeout=3.0))
    assert (limits.ping_interval, limits.max_message_size, limits.shutdown_grace) == (7, 8, 30)
    limits = ServerLimits.of(config_for_tests(websocket_ping_interval=1, websocket_max_message_size=2))
    assert (limits.ping_interval, limits.max_message_size) == (1, 2)
