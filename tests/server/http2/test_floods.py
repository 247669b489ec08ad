"""Floods of frames that ask for nothing: counted, ended with GOAWAY, and no neighbour waits for more than a turn."""

from __future__ import annotations

import itertools
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from trio_channels.server import statistics
from trio_channels.server.http2.floods import FRAMES_PER_TURN, FrameCounter
from trio_channels.server.run import _servers

from .raw import (
    DATA,
    END_HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    Raw,
    Reads,
    frame,
    headers,
    post,
    raw,
    request,
    settings,
    transport,
    window_update,
)

Flood = Callable[[], Iterator[bytes]]

#: Each flood ends within these frames: the burst, and the frames sent while the server ends the connection.
MOST_FRAMES = 5_000


def again(data: bytes) -> Flood:
    return lambda: itertools.repeat(data)


def resets() -> Iterator[bytes]:
    for stream in itertools.count(1, 2):
        yield headers(stream) + frame(RST_STREAM, 0, stream, struct.pack("!L", ErrorCodes.CANCEL))


def overflows() -> Iterator[bytes]:
    """The server has to reset each of these streams (CVE-2025-8671)."""
    for stream in itertools.count(1, 2):
        yield headers(stream, request("/slow"), END_HEADERS) + window_update(2**31 - 1, stream)


def windows() -> Iterator[bytes]:
    yield post()
    yield from itertools.cycle((settings((4, 0)), settings((4, 65_535))))


def after_post(data: bytes) -> Flood:
    return lambda: itertools.chain([post()], itertools.repeat(data))


FLOODS: dict[str, Flood] = {
    "PING": again(frame(PING, payload=bytes(8))),
    "answers to no PING": again(frame(PING, 1, payload=bytes(8))),
    "SETTINGS": again(settings()),
    "SETTINGS with values": again(settings((1, 4_096), (3, 10))),
    "window toggling": windows,
    "WINDOW_UPDATE of the connection": again(window_update(1)),
    "WINDOW_UPDATE of a stream": after_post(window_update(1, 1)),
    "unknown type": again(frame(0xFA)),
    "unknown type with content": again(frame(0xFA, payload=bytes(100))),
    "empty DATA": after_post(frame(DATA, 0, 1)),
    "padding without DATA": after_post(frame(DATA, 8, 1, b"\x01\x00")),
    "PRIORITY": again(frame(PRIORITY, 0, 1, struct.pack("!LB", 3, 1))),
    "resets": resets,
    "streams that the server has to reset": overflows,
}


floods = pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)


@pytest.fixture
def no_time() -> trio.testing.MockClock:
    """A clock that stands still: a flood counts as one on a slow machine too."""
    return trio.testing.MockClock()


async def pour(client: Raw, flood: Flood) -> int:
    """Send a flood, and read all answers, until the server ends the connection; returns the number of frames."""
    sent = 0
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            await client.until(lambda: False)
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        for data in flood():
            await client.send(data)
            sent += 1
            if sent % 100 == 0:
                await trio.testing.wait_all_tasks_blocked()
            assert sent < 4 * MOST_FRAMES, "the server takes everything"
    return sent


@floods
async def test_flood_ends_in_goaway(
    flood: Flood, caplog: pytest.LogCaptureFixture, no_time: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.INFO, "trio_channels.access")
    async with transport(Reads()) as where, await where.connect() as healthy:
        await healthy.begin()
        async with await where.connect() as client:
            await client.begin()
            assert await pour(client, flood) < MOST_FRAMES
            assert [code for _, code in client.goaways] == [ErrorCodes.ENHANCE_YOUR_CALM]
        assert statistics().ended == {"flood": 1}
        assert statistics().refusals == {429: 1}
        assert await healthy.get(1) == 200
    assert sum('"- - 2" 429 ' in record.getMessage() for record in caplog.records) == 1


@floods
async def test_flood_waits_for_others_after_each_turn(flood: Flood, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns of a neighbour, one connection has two turns at most: Trio runs tasks in a random order."""
    frames = most = 0
    begin = FrameCounter._begin

    def counted(counter: FrameCounter, head: bytes) -> None:
        nonlocal frames
        frames += 1
        begin(counter, head)

    async def neighbour() -> None:
        nonlocal frames, most
        while True:
            most, frames = max(most, frames), 0
            await trio.lowlevel.checkpoint()

    async with raw(Reads()) as client:
        assert await client.lives()
        (server,) = _servers.get()
        (connection,) = server.connections
        monkeypatch.setattr(FrameCounter, "_begin", counted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour)
            await connection.protocol.receive_bytes(b"".join(itertools.islice(flood(), 1_000)))
            nursery.cancel_scope.cancel()
    assert 0 < most <= 2 * FRAMES_PER_TURN


# -- clients that are no flood ----------------------------------------------------------------------------------------


async def test_busy_client_is_no_flood() -> None:
    async with raw(Reads(), keep_alive_max_requests=10_000) as client:
        for stream in range(1, 6_001, 2):
            await client.send(window_update(1) + window_update(1) + headers(stream) + frame(PING, payload=bytes(8)))
            assert await client.answer(stream) == 200


async def test_frames_that_come_byte_by_byte_are_counted_once() -> None:
    counter = FrameCounter(16_384)
    data = PREFACE + settings((3, 100)) + headers() + frame(PING, payload=bytes(8))
    assert sum(counter.turn(data[place : place + 1], 0) for place in range(len(data))) == len(data)
    assert counter._tokens == 2_000 - 3


async def test_small_parts_of_a_body_are_no_flood() -> None:
    async with raw(Reads()) as client:
        await client.send(post())
        for _ in range(10_000):
            await client.data(1, b"x")
        await client.upload(1, 1)
        assert await client.answer(1) == 200
        assert client.bodies[1] == b"10001"


async def test_client_that_measures_its_way_is_no_flood() -> None:
    """The client opens both windows and sends a PING for each frame of a large response."""

    class Talks(Reads):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(16_384 * 2_000)})

    async with raw(Talks()) as client:
        total = 0
        await client.send(headers())
        while 1 not in client.ended:
            got = await client.next()
            assert got is not None, client.goaways
            if got.kind == DATA and got.payload:
                size = len(got.payload)
                total += size
                client.bodies.clear()
                answer = window_update(size) + window_update(size, 1) + frame(PING, payload=bytes(8))
                await client.send(answer)
    assert total == 16_384 * 2_000


async def test_client_that_rests_may_go_on(clock: trio.testing.MockClock) -> None:
    async with raw(keep_alive_timeout=60) as client:
        for _ in range(20):
            for _ in range(1_000):
                await client.send(frame(PING, 1, payload=bytes(8)))
            assert await client.get(2 * client.probes + 1) == 200
            client.probes += 1
            with trio.move_on_after(11):
                await client.until(lambda: False)
            assert client.goaways == []


async def test_browser_may_reset_many_requests_at_once() -> None:
    async with raw(Reads()) as client:
        await client.send(b"".join(itertools.islice(resets(), 100)))
        assert await client.lives()
        assert await client.get(1_001) == 200
