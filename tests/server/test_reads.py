"""How much of a client one read takes: more of one that uploads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_channels.server import transport
from trio_channels.server.connection import MAX_RECV, MAX_RECV_ON

from .clients import HANDSHAKE, read_until, serving_ours

Read = tuple[int, int]  # bytes that were asked for, and that came


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
    """Whether each read after a full one asked for more, and each other for little."""
    expected = [MAX_RECV, *(MAX_RECV_ON if came == most else MAX_RECV for most, came in reads)]
    return all(most == wanted for (most, _), wanted in zip(reads, expected, strict=False))


@pytest.mark.parametrize("size", [10, MAX_RECV, MAX_RECV + 1, 20 * MAX_RECV])
async def test_upload_is_read_in_larger_pieces(size: int, reads: list[Read]) -> None:
    async with serving_ours(counts) as server, await server.connect() as client:
        for _ in range(2):
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
            await client.send_all(head + bytes(size))
            assert (await read_until(client, b"size %d." % size)).startswith(b"HTTP/1.1 200")
    assert follow_each_other(reads)
    if size > 10 * MAX_RECV:
        assert any(most == MAX_RECV_ON for most, _ in reads)


async def test_websocket_is_read_in_small_pieces(reads: list[Read]) -> None:
    message = bytes((0x82, 0xFF)) + (500_000).to_bytes(8, "big") + bytes(4 + 500_000)
    async with serving_ours(counts) as server, await server.connect() as client:
        await client.send_all(HANDSHAKE % (b"/ws/", b"Origin: http://localhost\r\n"))
        await read_until(client, b"\r\n\r\n")
        for _ in range(2):
            await client.send_all(message)
            await read_until(client, b"ok")
    assert {most for most, _ in reads} == {MAX_RECV}
