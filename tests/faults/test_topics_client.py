"""``trio_channels.client`` while its server is killed ten times: each message comes once, or the client is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.client import Rejoined, connect
from trio_channels.exceptions import NotConnected, ReplyLost, ReplyTimeout
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.topics import broadcast

from ..clients.server import OPTIONS
from ..ports import free_port
from ..redis_server import RedisServer, needs_redis

pytestmark = [pytest.mark.faults, needs_redis, pytest.mark.time_limit(240)]

KILLS, CLIENTS = 10, 10
TOPIC = "kept:lobby"
PATIENCE = 200.0


def soon(attempt: int, code: int | None) -> float:
    return 0.05


class Server:
    """A server that can be killed, and comes back at its port."""

    def __init__(self, host: str, prefix: str) -> None:
        self.port = free_port()
        self._arguments = json.dumps([host]), prefix, str(self.port)
        self._process: trio.Process

    async def start(self) -> None:
        command = [sys.executable, "-m", "tests.clients.server", *self._arguments]
        self._process = await trio.lowlevel.open_process(command, stdout=-1)
        assert self._process.stdout is not None
        said = b""
        while b"serving" not in said:
            more = await self._process.stdout.receive_some()
            assert more, "the server has ended"
            said += more

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()
        assert self._process.stdout is not None
        await self._process.stdout.aclose()


class Reader:
    """A client, and the numbers that it has got; None where it was told that some are missing."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.numbers: list[int | None] = []
        self.rejoins = 0
        self.answered = self.unknown = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with (
            connect(self.address, back_off=soon, timeout=10.0) as socket,
            socket.join(TOPIC) as room,
            trio.open_nursery() as nursery,
        ):
            task_status.started()
            nursery.start_soon(self.push, room)
            async for message in room:
                if isinstance(message, Rejoined):
                    self.rejoins += 1
                    if not message.recovered:
                        self.numbers.append(None)
                else:
                    self.numbers.append(message.payload["n"])

    async def push(self, room: Any) -> None:
        for number in range(1_000_000):
            try:
                assert await room.push("echo", number) == number
                self.answered += 1
            except (ReplyLost, NotConnected, ReplyTimeout):
                self.unknown += 1
            await trio.sleep(0.02)


@asynccontextmanager
async def server_with_redis(layer: RedisStreamsChannelLayer, host: str) -> AsyncIterator[Server]:
    server = Server(host, layer.prefix)
    async with layer:
        await server.start()
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await server.kill()


@pytest.fixture
def redis() -> Any:
    server = RedisServer()
    server.start()
    yield server
    server.close()


async def test_server_killed_ten_times_costs_no_message(redis: RedisServer) -> None:
    layer = RedisStreamsChannelLayer(hosts=[redis.url], prefix=f"client-{os.getpid()}", **OPTIONS)
    sent = 0

    async def publish() -> None:
        nonlocal sent
        await broadcast(TOPIC, "told", {"n": sent}, layer=layer)
        sent += 1

    with trio.fail_after(PATIENCE):
        async with server_with_redis(layer, redis.url) as server, trio.open_nursery() as nursery:
            readers = [Reader(f"ws://127.0.0.1:{server.port}/socket") for _ in range(CLIENTS)]
            for reader in readers:
                await nursery.start(reader.run)
            for _ in range(KILLS):
                for _ in range(4):
                    await publish()
                await server.kill()
                for _ in range(4):
                    await publish()
                await server.start()
                rejoined = min(reader.rejoins for reader in readers)
                while min(reader.rejoins for reader in readers) == rejoined:
                    await publish()
                    await trio.sleep(0.01)
            while any(reader.numbers[-1] != sent - 1 for reader in readers):  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    for reader in readers:
        assert reader.numbers == list(range(sent))
        assert reader.rejoins >= KILLS
        assert reader.answered > 0


async def test_client_is_told_when_the_history_is_too_short(redis: RedisServer) -> None:
    layer = RedisStreamsChannelLayer(hosts=[redis.url], prefix=f"short-{os.getpid()}", **OPTIONS)
    with trio.fail_after(PATIENCE):
        async with (
            server_with_redis(layer, redis.url) as server,
            connect(f"ws://127.0.0.1:{server.port}/socket", back_off=soon) as socket,
            socket.join("short:lobby") as room,
        ):
            await server.kill()
            for number in range(5):
                await broadcast("short:lobby", "told", {"n": number}, layer=layer)
            await server.start()
            message = await room.__anext__()
            assert isinstance(message, Rejoined)
            assert not message.recovered
            await broadcast("short:lobby", "told", {"n": 5}, layer=layer)
            assert (await room.__anext__()).payload == {"n": 5}
