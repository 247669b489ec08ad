"""Two layers that know each other: for the layer in memory one and the same."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio

from trio_channels.layers import InMemoryChannelLayer, PresenceState
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.presence import view
from trio_channels.layers.redis import RedisStreamsChannelLayer

from ..conftest import redis_cluster_hosts, redis_url

DEADLINE = 20.0
_prefixes = itertools.count()


class Pair(NamedTuple):
    """Where keys are tracked, and where others watch."""

    here: ChannelLayer
    there: ChannelLayer


MakePair = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "INTERVAL", 0.002)


@asynccontextmanager
async def in_memory(**options: Any) -> AsyncIterator[Pair]:
    layer = InMemoryChannelLayer(**options)
    yield Pair(layer, layer)


def over_redis(hosts: Callable[[], Any]) -> MakePair:
    @asynccontextmanager
    async def make(**options: Any) -> AsyncIterator[Pair]:
        options = {"prefix": f"presence-{next(_prefixes)}"} | options
        here, there = (RedisStreamsChannelLayer(hosts=hosts(), **options) for _ in range(2))
        async with here, there:
            yield Pair(here, there)

    return make


MAKERS: dict[str, tuple[MakePair, str | None]] = {
    "memory": (in_memory, None),
    "redis": (over_redis(lambda: [redis_url()]), "redis_server"),
    "cluster": (over_redis(redis_cluster_hosts), "redis_cluster"),
}


@pytest.fixture(params=["memory", "redis", "cluster"])
def make_pair(request: pytest.FixtureRequest) -> MakePair:
    make, needs = MAKERS[request.param]
    if needs is not None:
        request.getfixturevalue(needs)
    return make


@pytest.fixture
async def pair(make_pair: MakePair) -> AsyncIterator[Pair]:
    async with make_pair() as pair:
        yield pair


async def until(events: Any, holds: Callable[[PresenceState], bool]) -> list[dict[str, Any]]:
    """Take events until the state is as expected; returns them."""
    taken = []
    with trio.fail_after(DEADLINE):
        while not holds(events.state):
            taken.append(await anext(events))
    return taken


async def eventually(layer: ChannelLayer, group: str, expected: dict[str, list[dict[str, Any]]]) -> None:
    """Wait until a layer sees these keys and metas."""
    with trio.fail_after(DEADLINE):
        while plain(await layer.presence(group)) != expected:  # noqa: ASYNC110 - a state raises no event
            await trio.sleep(0.002)


def plain(state: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """A state, or the joins or leaves of an event, without the references."""
    return {
        key: [{name: value for name, value in meta.items() if name != "ref"} for meta in metas]
        for key, metas in state.items()
    }
