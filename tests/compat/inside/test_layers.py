"""The base class of layers, as code for Channels uses it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio
from channels.layers import BaseChannelLayer, InMemoryChannelLayer, get_channel_layer
from channels_redis.core import RedisChannelLayer

import trio_channels.layers
from trio_channels.layers.base import ChannelLayer


def test_object_of_the_base_class_checks_names() -> None:
    layer = BaseChannelLayer(expiry=5, capacity=7)
    assert (layer.expiry, layer.capacity) == (5, 7)
    assert layer.require_valid_group_name("room")
    with pytest.raises(TypeError):
        layer.require_valid_channel_name("not a name")


@pytest.mark.parametrize("method", sorted(ChannelLayer.__abstractmethods__))
def test_object_of_the_base_class_does_nothing_else(method: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"has no {method}\(\)"):
        getattr(BaseChannelLayer(), method)("room", {})


def test_every_layer_is_an_instance() -> None:
    for layer in (InMemoryChannelLayer(), trio_channels.layers.InMemoryChannelLayer(), get_channel_layer()):
        assert isinstance(layer, BaseChannelLayer)
    assert issubclass(RedisChannelLayer, BaseChannelLayer)
    assert not isinstance(object(), BaseChannelLayer)


def test_pools_of_redis_need_no_closing() -> None:
    async def close() -> None:
        await RedisChannelLayer().close_pools()

    asyncio.run(close())
    trio.run(close)


def test_layer_for_asyncio_is_refused() -> None:
    class Half(BaseChannelLayer):
        async def send(self, channel: str, message: Any) -> None: ...

    assert not isinstance(InMemoryChannelLayer(), Half)
    with pytest.raises(TypeError, match="abstract"):
        Half()
