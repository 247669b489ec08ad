"""Helpers shared by the tests of the outbox: layers, waits for the relay, the messages of a subscriber."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels import outbox
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer

from ..layers.conftest import redis_server  # noqa: F401 - a fixture

#: Makes a block in which a layer is open and the default one.
LayerBlock = Callable[[], AbstractAsyncContextManager[ChannelLayer]]


@pytest.fixture(autouse=True)
def frequent_looks(settings: Any) -> None:
    """A relay that nothing notifies looks more often than by default. Set before layers are made: it resets them."""
    settings.TRIO_CHANNELS = {"RELAY_POLL": 0.05}


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.slow), "redis"])
def layer_block(request: pytest.FixtureRequest) -> LayerBlock:
    """``async with layer_block() as layer``: a layer of each kind is open, and the default one."""

    def make() -> ChannelLayer:
        if request.param == "memory":
            return InMemoryChannelLayer(capacity=10_000)
        return RedisStreamsChannelLayer(hosts=[server.url], prefix=f"t{id(request)}", capacity=10_000)

    server: Any = request.getfixturevalue("redis_server") if request.param == "redis" else None

    @asynccontextmanager
    async def block() -> AsyncIterator[ChannelLayer]:
        layer = make()
        before = channel_layers.set("default", layer)
        try:
            async with layer:
                yield layer
        finally:
            channel_layers.set("default", before)

    return block


@pytest.fixture
def memory() -> Iterator[InMemoryChannelLayer]:
    """An in-memory layer as the default one."""
    layer = InMemoryChannelLayer(capacity=10_000)
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)


async def until_empty() -> None:
    """Wait until relays have sent everything."""
    while (await outbox.astatus()).pending:  # noqa: ASYNC110 - a database table raises no event
        await trio.sleep(0.005)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - a condition raises no event
            await trio.sleep(0.005)


async def numbers(events: AsyncIterator[Any], count: int) -> list[int]:
    """The numbers of the next messages."""
    with trio.fail_after(60):
        return [(await anext(events))["n"] for _ in range(count)]
