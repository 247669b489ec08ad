"""The data that a stream has to send: in order, held once, and bounded."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from trio_channels.server.http2.sending import Buffer

from .raw import Reads, headers, raw, window_update

MIB = 2**20


async def at_once(wait: Any) -> None:
    await wait()


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (5_000, 5_000), (1, 5_000, 1), (5_000, 1, 1, 5_000), (0, 3), (4_096, 4_095)]
)
@pytest.mark.parametrize("most", [1, 1_000, 4_096, 100_000])
async def test_buffer_gives_what_it_got(sizes: tuple[int, ...], most: int) -> None:
    buffer = Buffer(at_once)
    parts = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    for part in parts:
        await buffer.push(part)
    got = []
    while len(buffer):
        assert not buffer.complete
        got.append(await buffer.pop(most))
    assert b"".join(got) == b"".join(parts)
    assert all(len(one) == most for one in got[:-1])
    buffer.set_complete()
    assert buffer.complete


class Says(Reads):
    """Answers with one large body."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.body()})

    def body(self) -> bytes:
        return bytes(8 * MIB)


async def test_bodies_behind_closed_windows_are_held_once() -> None:
    async with raw(Says(), begins=[(4, 0)]) as client:
        assert await client.lives()
        tracemalloc.start()
        try:
            for stream in range(1, 9, 2):
                await client.send(headers(stream))
                assert await client.until(lambda stream=stream: stream in client.statuses)
            assert await client.lives()
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 4 * 8 * MIB + MIB
        assert most < 5 * 8 * MIB
        await client.send(window_update(1_000) + window_update(1_000, 1))
        assert await client.until(lambda: len(client.bodies.get(1, b"")) == 1_000)
