"""New channel layers for each test."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from trio_channels.layers.base import ChannelLayer
from trio_channels.sync import async_to_sync
from trio_channels.testing import WebsocketCommunicator, fresh_channel_layers

IN_MEMORY = "trio_channels.layers.InMemoryChannelLayer"
#: Nothing listens there: an entry of a fresh layer must not connect.
REDIS = {"BACKEND": "trio_channels.layers.redis.RedisStreamsChannelLayer", "CONFIG": {"hosts": ["redis://localhost:1"]}}


class Listens(AsyncWebsocketConsumer):
    groups = ("room",)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(event["text"])


async def test_consumer_and_test_share_the_layer(channel_layer: ChannelLayer) -> None:
    assert get_channel_layer() is channel_layer
    async with WebsocketCommunicator(Listens.as_asgi(), "/") as ws:
        await ws.connect()
        await channel_layer.group_send("room", {"type": "chat.message", "text": "hello"})
        assert await ws.receive_from() == "hello"


@pytest.mark.parametrize("turn", [1, 2])
async def test_nothing_is_left_of_the_test_before(channel_layer: ChannelLayer, turn: int) -> None:
    assert channel_layer.statistics().sent == 0
    await channel_layer.send("jobs", {"type": "job", "turn": turn})
    assert await channel_layer.receive("jobs") == {"type": "job", "turn": turn}
    await channel_layer.send("jobs", {"type": "left.over"})


def test_synchronous_test_has_it_too(channel_layer: ChannelLayer) -> None:
    channel = async_to_sync(channel_layer.new_channel)()
    async_to_sync(channel_layer.group_add)("news", channel)
    async_to_sync(channel_layer.group_send)("news", {"type": "news.item"})
    assert async_to_sync(channel_layer.receive)(channel) == {"type": "news.item"}


def test_layer_serves_several_runs(channel_layer: ChannelLayer) -> None:
    async def send(turn: int) -> None:
        async with channel_layer.subscribe("news") as events:
            await channel_layer.group_send("news", {"type": "news.item", "turn": turn})
            assert await anext(events) == {"type": "news.item", "turn": turn}

    for turn in (1, 2):
        trio.run(send, turn)


def test_former_layers_are_back_afterwards(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY}}
    before = get_channel_layer()
    with suppress(LookupError), fresh_channel_layers() as inside:
        assert get_channel_layer() is inside is not before
        raise LookupError
    assert get_channel_layer() is before


def test_layers_of_the_settings_may_be_changed_inside(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY}}
    before = get_channel_layer()
    with fresh_channel_layers() as inside:
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY, "CONFIG": {"capacity": 7}}}
        layer = get_channel_layer()
        assert layer is not inside
        assert layer.capacity == 7
    assert get_channel_layer() is before


def test_every_alias_has_a_new_layer(settings: Any) -> None:
    small = {"BACKEND": IN_MEMORY, "CONFIG": {"capacity": 50}, "TEST_CONFIG": {"capacity": 5}}
    settings.CHANNEL_LAYERS = {"default": REDIS, "small": small}
    with fresh_channel_layers() as layer:
        assert layer is channel_layers["default"]
        assert type(layer) is InMemoryChannelLayer
        assert channel_layers["small"].capacity == 5
        assert get_channel_layer("none") is None


KEPT = {"news.*": {"messages": 2, "seconds": 60}}


@pytest.mark.parametrize(
    ("entry", "keeps"),
    [
        ({**REDIS, "CONFIG": {"hosts": ["redis://unused"], "history": KEPT}}, True),
        ({"BACKEND": IN_MEMORY, "CONFIG": {"history": KEPT}}, True),
        ({"BACKEND": IN_MEMORY, "CONFIG": {"history": KEPT}, "TEST_CONFIG": {"capacity": 5}}, True),
        ({"BACKEND": IN_MEMORY, "CONFIG": {"history": KEPT}, "TEST_CONFIG": {"history": {}}}, False),
        ({"BACKEND": IN_MEMORY, "CONFIG": {}}, False),
        ({"BACKEND": IN_MEMORY, "CONFIG": None}, False),
    ],
)
async def test_groups_keep_their_history(settings: Any, entry: dict[str, Any], keeps: bool) -> None:
    settings.CHANNEL_LAYERS = {"default": entry}
    with fresh_channel_layers() as layer:
        async with layer.subscribe("news.sport") as events:
            await layer.group_send("news.sport", {"type": "news.item"})
            assert ("history" in await anext(events)) is keeps


def test_without_a_default_the_first_is_given(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"chat": REDIS, "jobs": REDIS}
    with fresh_channel_layers() as layer:
        assert layer is channel_layers["chat"]
        assert layer is not channel_layers["jobs"]
        assert get_channel_layer() is None


def test_without_the_setting_there_is_a_default(settings: Any) -> None:
    del settings.CHANNEL_LAYERS
    with fresh_channel_layers() as layer:
        assert get_channel_layer() is layer
    assert get_channel_layer() is None


def test_bad_test_config_is_an_error(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": IN_MEMORY, "TEST_CONFIG": {"capacity": 0}}}
    before = channel_layers.backends
    with pytest.raises(InvalidChannelLayerError, match="capacity"), fresh_channel_layers():
        pytest.fail("entered")
    assert channel_layers.backends is before
