"""Topics of several processes: broadcasts, resume and presence over Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.testing import TopicCommunicator
from trio_channels.topics import Topic, TopicSocket, broadcast, event

from ..layers.conftest import redis_server
from ..layers.redis.conftest import url
from ..layers.redis.world import make_layers

__all__ = ["redis_server", "url"]  # fixtures

A = "room:a"


class Room(Topic):
    pattern = "room:<slug:name>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> None:
        if "key" in params:
            await self.track(params["key"])

    @event("tell")
    async def tell(self, payload: Any) -> None:
        await self.broadcast_from("told", payload)


Layers = tuple[RedisStreamsChannelLayer, RedisStreamsChannelLayer]


@pytest.fixture
async def layers(url: str) -> AsyncIterator[Layers]:
    history = {"topic.room.*": {"messages": 300, "seconds": 60}}
    here, there = make_layers(url, url, history=history, capacity=100, overflow="close")
    async with here, there:
        yield here, there


@asynccontextmanager
async def connected(layer: RedisStreamsChannelLayer) -> AsyncIterator[TopicCommunicator]:
    cls: Any = type("Socket", (TopicSocket,), {"channel_layer": layer})
    async with TopicCommunicator(cls.as_asgi(topics=[Room])) as client:
        await client.connect()
        yield client
        await client.disconnect()


async def test_broadcast_reaches_other_processes(layers: Layers) -> None:
    async with connected(layers[0]) as one, connected(layers[1]) as two:
        await one.join(A, {})
        await two.join(A, {})
        await one.push(A, "tell", {"n": 1})
        assert (await two.receive_event(A, "told")).payload == {"n": 1}
        await broadcast(A, "news", b"\xff", layer=layers[1])
        assert (await one.receive_event(A, "news")).payload == (await two.receive_event(A, "news")).payload == b"\xff"
        assert [frame.event for frame in one._frames if frame.event == "told"] == []


async def test_client_resumes_in_another_process(layers: Layers) -> None:
    async with connected(layers[0]) as client:
        position = (await client.join(A, {})).response["position"]
    for number in range(250):
        await broadcast(A, "news", number, layer=layers[0])
    async with connected(layers[1]) as client, trio.open_nursery() as nursery:
        nursery.start_soon(live, layers[0])
        assert (await client.join(A, {"since": position})).response == {"recovered": True, "position": position}
        got = [await client.receive_event(A, "news") for _ in range(300)]
        assert [frame.payload for frame in got] == list(range(300))
        assert len({frame.position for frame in got}) == 300


async def live(layer: RedisStreamsChannelLayer) -> None:
    for number in range(250, 300):
        await broadcast(A, "news", number, layer=layer)


async def test_presence_of_other_processes(layers: Layers) -> None:
    async with connected(layers[0]) as ada:
        await ada.join(A, {"key": "ada"})
        async with connected(layers[1]) as bob:
            await bob.join(A, {"key": "bob"})
            assert set((await bob.receive_event(A, "presence_state")).payload) == {"ada", "bob"}
            assert set((await ada.receive_event(A, "presence_diff")).payload["joins"]) == {"bob"}
        assert set((await ada.receive_event(A, "presence_diff")).payload["leaves"]) == {"bob"}
