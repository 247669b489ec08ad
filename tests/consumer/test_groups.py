"""``group_add`` of consumers, async and sync: with a position, the missed messages come first."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.consumer.groups import group_add_of
from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import Recovery
from trio_channels.testing import WebsocketCommunicator

LAYER = {"history": {"room": {"messages": 5, "seconds": 600}}}


class AsyncReader(AsyncJsonWebsocketConsumer):
    """Joins with the position that its client gives."""

    async def receive_json(self, content: Any) -> None:
        joined: Recovery = await self.group_add("room", since=content["since"])
        await self.send_json([joined.recovered, joined.position])

    async def test_message(self, event: dict[str, Any]) -> None:
        await self.send_json([event["n"], event["history"]["position"]])

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        await self.send_json(event["reason"])


class SyncReader(JsonWebsocketConsumer):
    def receive_json(self, content: Any) -> None:  # type: ignore[override]
        joined: Recovery = self.group_add("room", since=content["since"])
        self.send_json([joined.recovered, joined.position])

    def test_message(self, event: dict[str, Any]) -> None:
        self.send_json([event["n"], event["history"]["position"]])

    def channel_layer_gap(self, event: dict[str, Any]) -> None:
        self.send_json(event["reason"])


@pytest.mark.parametrize("consumer", [AsyncReader, SyncReader])
async def test_client_resumes(consumer: Any) -> None:
    layer = InMemoryChannelLayer(**LAYER)  # type: ignore[arg-type]

    class Reader(consumer):  # type: ignore[misc]
        channel_layer = layer

    async with WebsocketCommunicator(Reader.as_asgi(), "/") as client:
        await client.connect()
        await client.send_json_to({"since": None})
        recovered, position = await client.receive_json_from()
        assert not recovered
    sent = [await layer.group_send("room", {"type": "test.message", "n": number}) for number in range(2)]
    async with WebsocketCommunicator(Reader.as_asgi(), "/") as client:
        await client.connect()
        await client.send_json_to({"since": position})
        assert await client.receive_json_from() == [True, position]
        assert [await client.receive_json_from() for _ in sent] == [[0, sent[0]], [1, sent[1]]]
    async with WebsocketCommunicator(Reader.as_asgi(), "/") as client:
        await client.connect()
        await client.send_json_to({"since": "forged"})
        assert await client.receive_json_from() == [False, sent[-1]]
        assert await client.receive_json_from() == "not recovered"


def test_consumer_without_a_layer_cannot_join() -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"AsyncReader.group_add\(\) needs a channel layer"):
        group_add_of(AsyncReader(), None)


def test_layer_without_history_cannot_recover_a_position() -> None:
    class Plain(InMemoryChannelLayer):
        extensions = ("groups",)

    consumer = AsyncReader()
    consumer.channel_layer = Plain()
    assert group_add_of(consumer, None) == consumer.channel_layer.group_add
    with pytest.raises(InvalidChannelLayerError, match="Plain keeps no history"):
        group_add_of(consumer, "x")
