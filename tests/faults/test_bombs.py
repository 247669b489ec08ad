"""A message that is too large costs its sender the connection, and the server hardly any memory.

The server is a process of its own, so that its memory can be measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.process import memory_of
from tests.server.clients import Http1WebSocket, Server, close_code, frame, read_all

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


class Bombed(Server):
    """A server whose memory can be read."""

    def __init__(self, port: int, process: trio.Process) -> None:
        super().__init__()
        self.port = port
        self.process = process

    def memory(self, what: str = "VmHWM") -> int:
        """Resident bytes: the most so far (VmHWM), or those now (VmRSS)."""
        return memory_of(self.process.pid, what)


@asynccontextmanager
async def bombed(how: str, **settings: Any) -> AsyncIterator[Bombed]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.faults.bomb_server", how, json.dumps(settings)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        server = Bombed(int(await process.stdout.receive_some()), process)
        # Warm up: the memory that any message takes is not measured.
        for _ in range(3):
            client = await Http1WebSocket.open(server, headers=OFFER)
            await client.send(frame(2, bytes(MIB - 1)))
            assert await client.receive()
            await client.send(frame(8))
            await client.rest()
            await client.aclose()
        yield server
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def bomb(size: int) -> bytes:
    """Compress `size` zeros, in blocks that stand alone and therefore can be repeated."""
    compressor = zlib.compressobj(9, wbits=-15)
    block = compressor.compress(bytes(16 * MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return (block * (size // (16 * MIB)))[:-4]


async def stuff(client: Http1WebSocket, parts: int) -> None:
    """Send a message of `parts` MiB, in frames of 64 KiB, until the server breaks the connection."""
    part = frame(0, bytes(65_536), fin=False)
    try:
        await client.send(frame(2, fin=False))
        for _ in range(parts * 16):
            await client.send(part)
    except trio.BrokenResourceError:
        pass


async def test_bare_hypercorn_keeps_what_comes_after_the_limit() -> None:
    """Defect D10 of hypercorn."""
    async with bombed("bare") as server:
        before = server.memory()
        client = await Http1WebSocket.open(server)
        await stuff(client, 100)
        await client.send(frame(9))
        async with await server.connect() as other:  # served only after the data before it was read
            await other.send_all(b"GET / HTTP/1.0\r\n\r\n")
            await read_all(other)
        while server.memory() - before < 50 * MIB:
            await trio.lowlevel.checkpoint()
        await client.aclose()


@pytest.mark.parametrize("clients", [1, 20])
async def test_message_without_end_costs_a_mebibyte_at_most(clients: int) -> None:
    async with bombed("ours") as server:
        before = server.memory()
        async with trio.open_nursery() as nursery:

            async def attack() -> None:
                client = await Http1WebSocket.open(server)
                async with trio.open_nursery() as inner:
                    inner.start_soon(stuff, client, 100)
                    answer = await client.rest()
                    inner.cancel_scope.cancel()
                assert answer == b"" or close_code(answer) == 1009
                await client.aclose()

            for _ in range(clients):
                nursery.start_soon(attack)
        # A message may be read as far as the limit, and its buffer be copied once as it grows.
        assert server.memory() - before < (2 * clients + 1) * MIB


async def test_compressed_bomb_costs_a_mebibyte_and_the_connection() -> None:
    packed = bomb(1024 * MIB)
    async with bombed("ours", WEBSOCKET_COMPRESSION=True) as server:
        before = server.memory()
        client = await Http1WebSocket.open(server, headers=OFFER)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                try:
                    await client.send(frame(2, packed[:1_000_000], reserved=0x40))
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(send)
            assert close_code(await client.rest()) == 1009
        await client.aclose()
        assert server.memory() - before < 6 * MIB


async def test_compressed_bomb_costs_bare_hypercorn_memory() -> None:
    """Defect D11 of hypercorn."""
    packed = bomb(64 * MIB)
    async with bombed("bare") as server:
        before = server.memory()
        client = await Http1WebSocket.open(server, headers=OFFER)
        await client.send(frame(2, packed, reserved=0x40))
        await client.receive()
        assert server.memory() - before > 64 * MIB
        await client.aclose()
