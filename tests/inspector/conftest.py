"""Fixtures of the inspector's tests: layers, and processes that answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels import _conf, _orders
from trio_channels._orders import orders
from trio_channels.inspector.answering import answer_questions
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer

from ..layers.conftest import redis_server  # noqa: F401 - a fixture

#: A layer, open and the default one, in a process that answers.
Served = Callable[[], AbstractAsyncContextManager[ChannelLayer]]


@pytest.fixture(autouse=True)
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer questions, as a process with the app does."""
    monkeypatch.setattr(_orders, "functions", dict(_orders.functions))
    monkeypatch.setattr(_orders, "introduction", None)
    answer_questions()


@pytest.fixture(autouse=True)
def deadline(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets INSPECTOR_TIMEOUT, without Django's signal, which resets the layers. A busy machine answers late."""

    def set_to(seconds: float) -> None:
        monkeypatch.setitem(_conf._values(), "INSPECTOR_TIMEOUT", seconds)

    set_to(60.0)
    return set_to


@pytest.fixture
def default_layer() -> Iterator[Callable[[ChannelLayer], ChannelLayer]]:
    """Makes a layer the default one."""
    before = channel_layers.backends.get("default")

    def use(layer: ChannelLayer) -> ChannelLayer:
        channel_layers.set("default", layer)
        return layer

    yield use
    channel_layers.set("default", before)


@pytest.fixture(params=["memory", "redis"])
def served(request: pytest.FixtureRequest, default_layer: Callable[[ChannelLayer], ChannelLayer]) -> Served:
    """``async with served() as layer``: a layer of each kind, in a process that answers."""
    if request.param == "memory":
        layer: ChannelLayer = InMemoryChannelLayer()
    else:
        url = request.getfixturevalue("redis_server").url
        layer = RedisStreamsChannelLayer(hosts=[url], prefix=f"inspector{id(request)}")

    @asynccontextmanager
    async def block() -> AsyncIterator[ChannelLayer]:
        async with default_layer(layer), orders():
            yield layer

    return block


@asynccontextmanager
async def another_run(layer: ChannelLayer, role: str = "server") -> AsyncIterator[None]:
    """In the block, the layer is served by another Trio run, which stands for another process."""
    ready, over = trio.Event(), trio.Event()
    home = trio.lowlevel.current_trio_token()

    async def serve() -> None:
        end = trio.Event()
        nonlocal ends
        ends = (trio.lowlevel.current_trio_token(), end)
        async with layer, orders(role):
            home.run_sync_soon(ready.set)
            await end.wait()

    ends: tuple[Any, trio.Event] | None = None

    async def run() -> None:
        await trio.to_thread.run_sync(trio.run, serve)
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await ready.wait()
        try:
            yield
        finally:
            assert ends is not None
            ends[0].run_sync_soon(ends[1].set)
            with trio.CancelScope(shield=True):
                await over.wait()
