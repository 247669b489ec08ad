"""The size of one read from a client: larger while the client uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from trio_channels.server import transport
from trio_channels.server.connection import MAX_RECV, MAX_RECV_ON

from .clients import HANDSHAKE, read_until, serving_ours

Read = tuple[int, int]  # bytes asked for, and bytes received


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    real: Callable[..., bytes] = transport.read_socket
    seen: list[Read] = []

    def read(number: int, most: int) -> bytes:
        data = real(number, most)
        seen.append((most, len(data)))
        return data

    monkeypatch.setattr(transport, "read_socket", read)
    return seen


async def counts(scope: Any, receive: Any, send: Any) -> None:
    """Answers a request with the size of its body, and reads a WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "ok"})
        return
    size, more = 0, True
    while more:
        event = await receive()
        size, more = size + len(event["body"]), event["more_body"]
    body = b"size %d." % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def follow_each_other(reads: list[Read]) -> bool:
    """Whether each read after a full one asked for more; others may, after a pause."""
    return all(most == MAX_RECV_ON for (_, (most, _)) in filter(_first_was_full, pairwise(reads)))


def _first_was_full(two: tuple[Read, Read]) -> bool:
    (most, came), _ = two
    return came == most


@pytest.mark.parametrize("size", [10, MAX_RECV, MAX_RECV + 1, 20 * MAX_RECV])
async def test_upload_is_read_in_larger_pieces(size: int, reads: list[Read]) -> None:
    async with serving_ours(counts) as server, await server.connect() as client:
        for _ in range(2):
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
            await client.send_all(head + bytes(size))
            assert (await read_until(client, b"size %d." % size)).startswith(b"HTTP/1.1 200")
    assert reads[0][0] == MAX_RECV
    assert follow_each_other(reads)
    if size > 10 * MAX_RECV:
        assert any(most == MAX_RECV_ON for most, _ in reads)


class Still(NamedTuple):
    """A client of a server whose clock stands still, and that server's reads."""

    client: trio.SocketStream
    reads: list[Read]

    async def send(self, *parts: int) -> None:
        for size in parts:
            await self.client.send_all(bytes(size))
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def still(reads: list[Read], still_clock: trio.testing.MockClock) -> AsyncIterator[Still]:
    async with serving_ours(counts) as server, await server.connect() as client:
        await client.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        reads.clear()
        yield Still(client, reads)
        still_clock.autojump_threshold = 0


@pytest.fixture
def still_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock()


async def test_hasty_client_is_left_alone_for_a_moment(still: Still, still_clock: trio.testing.MockClock) -> None:
    await still.send(30_000)
    assert still.reads == [(MAX_RECV, 30_000)]
    await still.send(20_000, 20_000, 20_000)
    assert len(still.reads) == 1
    still_clock.jump(0.001)
    await still.send()
    assert still.reads[1] == (MAX_RECV_ON, 60_000)


async def test_small_parts_of_a_body_are_read_at_once(still: Still, still_clock: trio.testing.MockClock) -> None:
    await still.send(10_000)
    await still.send(10_000)
    assert still.reads == [(MAX_RECV, 10_000), (MAX_RECV, 10_000)]


async def test_parts_that_come_slowly_are_read_at_once(still: Still, still_clock: trio.testing.MockClock) -> None:
    for _ in range(2):
        still_clock.jump(0.001)
        await still.send(30_000)
    assert still.reads == [(MAX_RECV, 30_000), (MAX_RECV, 30_000)]


async def test_request_behind_a_body_is_read_at_once(still: Still, still_clock: trio.testing.MockClock) -> None:
    await still.send(30_000)
    await still.send(70_000)
    still_clock.jump(0.001)
    await read_until(still.client, b"size 100000.")
    await still.client.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await read_until(still.client, b"size 0.")


async def test_websocket_is_read_in_small_pieces(reads: list[Read]) -> None:
    message = bytes((0x82, 0xFF)) + (500_000).to_bytes(8, "big") + bytes(4 + 500_000)
    async with serving_ours(counts) as server, await server.connect() as client:
        await client.send_all(HANDSHAKE % (b"/ws/", b"Origin: http://localhost\r\n"))
        await read_until(client, b"\r\n\r\n")
        for _ in range(2):
            await client.send_all(message)
            await read_until(client, b"ok")
    assert {most for most, _ in reads} == {MAX_RECV}
