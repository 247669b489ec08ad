"""Synchronous code called by asyncio code, and its way back."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import channels.auth
import channels.db
import channels.generic.websocket
import channels.layers
import pytest
import sniffio
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.sessions.backends.cache import SessionStore
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.asyncio import async_unsafe

from trio_channels import bridge
from trio_channels.compat import crossing, layers
from trio_channels.layers import InMemoryChannelLayer


async def library() -> str:
    await asyncio.sleep(0)
    return sniffio.current_async_library()


@async_unsafe
def query() -> str:
    return "queried"


async def on_asyncio(function: Any) -> Any:
    await crossing.enter_loop()
    return await crossing.call_asyncio(function)


async def test_asgirefs_functions_run_on_the_pool_and_come_back_to_asyncio() -> None:
    async def handler() -> Any:
        return await sync_to_async(lambda: (threading.current_thread().name, async_to_sync(library)()))()

    name, back = await on_asyncio(handler)
    assert name != threading.current_thread().name
    assert back == "asyncio"


async def test_layers_stay_on_trio() -> None:
    layer = InMemoryChannelLayer()

    async def handler() -> None:
        await sync_to_async(lambda: async_to_sync(layer.group_send)("tea", {"type": "said"}))()

    await on_asyncio(handler)
    assert layer.statistics().group_sent == 1


async def test_from_trio_the_way_back_is_trio() -> None:
    async def here() -> str:
        return sniffio.current_async_library()

    assert await sync_to_async(lambda: async_to_sync(here)())() == "trio"


async def test_blocking_query_is_refused_on_asyncio() -> None:
    async def handler() -> None:
        query()

    with pytest.raises(SynchronousOnlyOperation):
        await on_asyncio(handler)
    with pytest.raises(SynchronousOnlyOperation):
        query()
    assert await channels.db.database_sync_to_async(query)() == "queried"


async def test_database_functions_work_on_both() -> None:
    class Model:
        @channels.db.database_sync_to_async
        def one(self) -> str:
            return query()

        @channels.db.database_sync_to_async(thread_sensitive=False)
        def two(self) -> str:
            return query()

    async def both() -> list[str]:
        await channels.db.aclose_old_connections()
        return [await Model().one(), await Model().two()]

    assert await on_asyncio(both) == await both() == ["queried", "queried"]


async def test_log_in_functions_work_on_both() -> None:
    async def handler() -> Any:
        return await channels.auth.get_user({"session": SessionStore()})

    assert (await on_asyncio(handler)).is_anonymous
    assert (await handler()).is_anonymous


async def test_layers_of_the_alias_work_on_both() -> None:
    layer = InMemoryChannelLayer()
    manager = channels.layers.channel_layers
    manager.set("default", layer)
    given = channels.layers.get_channel_layer()

    async def handler() -> Any:
        channel = await given.new_channel()
        await given.send(channel, {"type": "said"})
        return await given.receive(channel)

    try:
        assert await on_asyncio(handler) == await handler() == {"type": "said"}
        assert given is manager["default"] is channels.layers.get_channel_layer()
        assert isinstance(given, channels.layers.BaseChannelLayer)
        assert "for asyncio" in repr(given)
        assert "default" in manager
        assert manager.set("default", given) is given
        assert manager.backends["default"] is layer
    finally:
        manager.set("default", None)
    assert channels.layers.get_channel_layer("nothing") is None


async def test_layer_class_of_the_alias_works_on_both() -> None:
    layer = channels.layers.InMemoryChannelLayer()
    assert layer.capacity
    for run in (on_asyncio, lambda function: function()):
        channel = await run(layer.new_channel)
        assert channel.startswith("specific!")


async def test_layers_are_made_from_the_settings(settings: Any) -> None:
    backend = "channels.layers.InMemoryChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "TEST_CONFIG": {"expiry": 5}}}
    for layer in (
        channels.layers.channel_layers.make_backend("default"),
        channels.layers.channel_layers.make_test_backend("default"),
    ):
        assert (await on_asyncio(layer.new_channel)).startswith("specific!")


def test_bridge_counts_as_installed() -> None:
    assert bridge.installed()


def test_layer_of_the_alias_is_freed() -> None:
    layer = InMemoryChannelLayer()
    assert layers.for_asyncio(layer) is layers.for_asyncio(layer)
    reference = weakref.ref(layer)
    del layer
    gc.collect()
    assert reference() is None
