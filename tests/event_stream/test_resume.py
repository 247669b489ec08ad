"""A client of a server that is killed, and ended in order, in traffic: it has each message once, in order."""

from __future__ import annotations

import itertools
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.testing.events import EventParser
from trio_channels.topics import broadcast

from ..integration.server.conftest import Server, next_event
from ..ports import free_port
from ..process import program
from ..redis_server import RedisServer, needs_redis
from . import site

pytestmark = [pytest.mark.faults, needs_redis]

SERVE = ("-m", "trio_channels", "serve", "tests.event_stream.pages:application")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


class Client:
    """As an EventSource: it comes back with its last event id."""

    def __init__(self, port: int) -> None:
        self._server = Server(port)
        self.last_id = ""
        self.opened: list[bool] = []
        self.gaps: list[Any] = []
        self.numbers: dict[int, list[int]] = {1: [], 2: []}

    async def run(self) -> None:
        while True:
            try:
                await self._visit()
            except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
                await trio.sleep(0.05)  # the server is away

    async def _visit(self) -> None:
        headers = [(b"last-event-id", self.last_id.encode())] if self.last_id else []
        stream, parser = await self._server.send_request("GET", "/open-events/", headers)
        events = EventParser()
        async with stream:
            while not isinstance(part := await next_event(stream, parser), h11.EndOfMessage | h11.ConnectionClosed):
                if isinstance(part, h11.Response):
                    assert part.status_code == 200
                elif isinstance(part, h11.Data):
                    for event in events.feed(bytes(part.data)):
                        self._got(event)

    def _got(self, event: Any) -> None:
        if event.id:
            self.last_id = event.id
        if event.event == "stream.open":
            self.opened.append(event.json()["recovered"])
        elif event.event == "stream.gap":
            self.gaps.append(event.json())
        else:
            self.numbers[event.json()["room"]].append(event.json()["n"])


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - another task reads a socket
        await trio.sleep(0.01)


@asynccontextmanager
async def served(port: int, redis: RedisServer) -> AsyncIterator[Any]:
    environment = {"DJANGO_SETTINGS_MODULE": "tests.event_stream.site", "TESTS_REDIS": redis.url}
    async with program(*SERVE, f"--bind=127.0.0.1:{port}", **environment) as server:
        await server.port()
        yield server


async def test_client_of_servers_that_end_misses_nothing(redis: RedisServer) -> None:
    port = free_port()
    client = Client(port)
    config = site.CHANNEL_LAYERS["default"]["CONFIG"] | {"hosts": [redis.url]}  # type: ignore[operator]
    async with RedisStreamsChannelLayer(**config) as layer, trio.open_nursery() as nursery:
        numbers = itertools.count()

        async def send() -> int:
            number = next(numbers)
            for room in (1, 2):
                await broadcast(f"room:{room}", "message.new", {"room": room, "n": number}, layer=layer)
            return number

        async def publish() -> None:
            while True:
                await send()
                await trio.sleep(0.01)

        for place, way in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, None)):
            async with served(port, redis) as server:
                if place == 0:
                    nursery.start_soon(client.run)
                    await until(lambda: client.opened)
                    nursery.start_soon(publish)
                await until(lambda place=place: len(client.opened) > place)
                seen = len(client.numbers[1])
                await until(lambda seen=seen: len(client.numbers[1]) > seen + 5)
                if way is None:
                    last = await send()
                    await until(lambda last=last: min(map(max, client.numbers.values())) >= last)
                    nursery.cancel_scope.cancel()
                else:
                    server.process.send_signal(way)
                    code = await server.ends()
                    assert way == signal.SIGKILL or code == 0, server.text
    assert client.opened == [False, True, True, True]
    assert client.gaps == []
    for received in client.numbers.values():
        assert received == list(range(len(received)))
