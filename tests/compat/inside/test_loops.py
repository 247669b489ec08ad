"""Tests that are written for asyncio: each loop brings a Trio run with it."""

from __future__ import annotations

import asyncio
import contextlib
import unittest
from typing import Any

import channels.generic.websocket
import channels.testing
import pytest
from channels_redis.core import RedisChannelLayer

from trio_channels.bridge.patches import in_trio
from trio_channels.compat import loops
from trio_channels.compat.crossing import call_trio
from trio_channels.layers.on_demand import open_on_demand


class Echo(channels.generic.websocket.AsyncWebsocketConsumer):
    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await asyncio.gather(self.send(f"one {text_data}"), self.send(f"two {text_data}"))


async def talk() -> list[Any]:
    client = channels.testing.WebsocketCommunicator(Echo.as_asgi(), "test/")  # as in Channels, without a first slash
    assert await client.connect() == (True, None)
    await client.send_to("hello")
    got = [await client.receive_from(), await client.receive_from()]
    assert await client.receive_nothing()
    with pytest.raises(asyncio.TimeoutError):
        await client.receive_from(timeout=0.01)
    await client.disconnect()
    with pytest.raises(asyncio.TimeoutError):
        await client.receive_output(timeout=0.01)
    return got


def test_communicator_in_asyncio_run() -> None:
    assert asyncio.run(talk()) == ["one hello", "two hello"]
    assert not in_trio()


def test_communicator_in_an_asyncio_test_case() -> None:
    class Cases(unittest.IsolatedAsyncioTestCase):
        async def runTest(self) -> None:
            assert await talk() == ["one hello", "two hello"]

    result = Cases().run()
    assert result is not None
    assert result.wasSuccessful(), [*result.errors, *result.failures]


class Opened(RedisChannelLayer):
    """A layer that notes when it is opened and closed, and needs no Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def __aenter__(self) -> Any:
        self.seen.append("opened")
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.seen.append("closed")

    async def use(self) -> None:
        await open_on_demand(self)
        self.seen.append("used")


def test_layer_opens_on_first_use_and_closes_with_the_loop() -> None:
    layer = Opened()

    async def use() -> None:
        await call_trio(layer.use)

    asyncio.run(use())
    assert layer.seen == ["opened", "used", "closed"]


def test_what_a_test_leaves_is_ended() -> None:
    seen = []

    class Waiting(channels.generic.websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                seen.append("ended")

    async def leave() -> None:
        client = channels.testing.WebsocketCommunicator(Waiting.as_asgi(), "/")
        await client.connect()
        await client.send_to("")
        await asyncio.sleep(0.05)

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert isinstance(loop, loops.LoopOnTrio)
        loop.run_until_complete(leave())
    assert seen == ["ended"]
