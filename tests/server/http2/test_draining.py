"""The orderly end of a connection: two GOAWAYs, and no request is lost between them."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing
from h2.errors import ErrorCodes as E

from trio_channels.server import statistics

from .raw import ACK, GOAWAY, PING, Raw, Reads, frame, headers, post, raw, transport

ANY = 2**31 - 1


class Waits(Reads):
    """Answers a POST when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await self.go_on.wait()
        await super().http(scope, receive, send)


async def is_told(client: Raw) -> bytes:
    """Read until the first GOAWAY; returns the content of the PING before it."""
    assert await client.until(lambda: client.goaways)
    assert client.goaways == [(ANY, E.NO_ERROR)]
    ping = client.seen[-2]
    assert (ping.kind, ping.flags) == (PING, 0)
    return ping.payload


async def test_requests_between_the_goaways_are_answered(clock: trio.testing.MockClock) -> None:
    application = Waits()
    async with raw(application, keep_alive_max_requests=2) as client:
        await client.send(post(1) + headers(3))
        ping = await is_told(client)
        assert await client.get(5) == 200  # sent before the client knew
        await client.send(frame(PING, ACK, 0, ping))
        assert await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (5, E.NO_ERROR)
        await client.send(headers(7))
        assert await client.until(lambda: client.resets)
        assert client.resets == {7: E.REFUSED_STREAM}
        application.go_on.set()
        await client.upload(1, 10)
        assert await client.answer(1) == 200
        assert not await client.until(lambda: False)
        assert statistics().refusals == {503: 1}
    assert client.count(GOAWAY) == 2


async def test_client_that_answers_no_ping_is_drained_too(clock: trio.testing.MockClock) -> None:
    async with raw(keep_alive_max_requests=1) as client:
        assert await client.get(1) == 200
        assert not await client.until(lambda: False)
    assert client.goaways == [(ANY, E.NO_ERROR), (1, E.NO_ERROR)]


async def test_client_that_leaves_while_it_is_drained_leaves_nothing(clock: trio.testing.MockClock) -> None:
    application = Waits()
    async with transport(application, keep_alive_max_requests=1) as where:
        async with await where.connect() as client:
            await client.begin()
            await client.send(post(1))
            await is_told(client)
        application.go_on.set()
        while statistics().connections:
            await trio.lowlevel.checkpoint()


async def test_shutdown_drains_each_connection(clock: trio.testing.MockClock) -> None:
    application = Waits()
    async with (
        transport(application, graceful_timeout=100) as where,
        await where.connect() as busy,
        await where.connect() as idle,
    ):
        for client in (busy, idle):
            await client.begin()
            assert await client.get(1) == 200
        await busy.send(post(3))
        assert await busy.lives()
        where.server.stop.set()
        assert not await idle.until(lambda: False)
        assert idle.goaways == [(ANY, E.NO_ERROR), (1, E.NO_ERROR)]
        await is_told(busy)
        application.go_on.set()
        await busy.upload(3, 10)
        assert await busy.answer(3) == 200
        assert not await busy.until(lambda: False)
        assert busy.goaways[1:] == [(3, E.NO_ERROR)]
