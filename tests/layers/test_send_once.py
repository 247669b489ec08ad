"""group_send_once: a message that is sent again comes once; and the identities that a process remembers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from trio_channels.exceptions import InvalidNameError, MessageNotEncodable
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.identities import Identities
from trio_channels.layers.redis import RedisStreamsChannelLayer

from .conftest import redis_url

LAYERS: dict[str, Callable[[], ChannelLayer]] = {
    "memory": InMemoryChannelLayer,
    "redis": lambda: RedisStreamsChannelLayer(hosts=[redis_url()], prefix=uuid.uuid4().hex),
    "json": lambda: RedisStreamsChannelLayer(
        hosts=[redis_url()], prefix=uuid.uuid4().hex, serializer_format="json", symmetric_encryption_keys=["secret"]
    ),
}


@pytest.fixture(params=LAYERS)
async def layer(request: pytest.FixtureRequest, redis_server: Any) -> AsyncIterator[ChannelLayer]:
    async with LAYERS[request.param]() as layer:
        yield layer


async def numbers(events: AsyncIterator[Any], count: int) -> list[int]:
    with trio.fail_after(30):
        return [(await anext(events))["n"] for _ in range(count)]


async def test_message_that_is_sent_again_comes_once(layer: ChannelLayer) -> None:
    async with layer.subscribe("g") as events:
        for n, identity in ((1, b"a"), (2, b"b"), (3, b"a"), (4, b"b"), (5, b"c")):
            await layer.group_send_once("g", {"type": "t", "n": n}, identity * 16)
        await layer.group_send("g", {"type": "t", "n": 6})
        assert await numbers(events, 4) == [1, 2, 5, 6]


KEPT = {"g": {"messages": 10, "seconds": 600}}
WITH_HISTORY: dict[str, Callable[[], ChannelLayer]] = {
    "memory": lambda: InMemoryChannelLayer(history=KEPT),
    "redis": lambda: RedisStreamsChannelLayer(hosts=[redis_url()], prefix=uuid.uuid4().hex, history=KEPT),
}


@pytest.mark.parametrize("make", WITH_HISTORY.values(), ids=WITH_HISTORY)
async def test_message_that_is_sent_again_is_kept_once(make: Callable[[], ChannelLayer], redis_server: Any) -> None:
    async with make() as layer:
        async with layer.subscribe("g") as events:
            for n, identity in ((1, b"a"), (2, b"b"), (3, b"a")):
                await layer.group_send_once("g", {"type": "t", "n": n}, identity * 16)
            await layer.group_send("g", {"type": "t", "n": 4})
            await layer.group_send("g", {"type": "t", "n": 5})
            assert await numbers(events, 4) == [1, 2, 4, 5]
        assert [message["n"] for message in (await layer.history("g")).messages] == [1, 2, 4, 5]


async def test_resumer_between_two_sends_gets_it_once(redis_server: Any) -> None:
    prefix = uuid.uuid4().hex
    first, second = (RedisStreamsChannelLayer(hosts=[redis_url()], prefix=prefix, history=KEPT) for _ in "12")
    async with first, second:
        await first.group_send_once("g", {"type": "t", "n": 1}, b"a" * 16)
        position = (await first.history("g")).position
        async with second.subscribe("g") as live:  # `second` has not received the first message
            await second.group_send_once("g", {"type": "t", "n": 1}, b"a" * 16)
            await second.group_send("g", {"type": "t", "n": 2})
            assert await numbers(live, 1) == [2]
        async with first.subscribe("g", since=position) as resumed:
            assert await numbers(resumed, 1) == [2]


async def test_excluded_member_does_not_get_it(layer: ChannelLayer) -> None:
    async with layer.subscribe("g") as events:
        with layer.open_mailbox() as mine:
            await layer.group_add("g", mine.name)
            await layer.group_send_once("g", {"type": "t", "n": 1}, b"a" * 16, exclude=mine.name)
            await layer.group_send("g", {"type": "t", "n": 2})
            assert await numbers(events, 2) == [1, 2]
            with trio.fail_after(30):
                assert (await mine.get())["n"] == 2


async def test_wrong_arguments_are_refused(layer: ChannelLayer) -> None:
    with pytest.raises(InvalidNameError):
        await layer.group_send_once("no group!", {"type": "t"}, b"a")
    with pytest.raises(InvalidNameError):
        await layer.group_send_once("g", {"type": "t"}, b"a", exclude="no channel!!")
    with pytest.raises(MessageNotEncodable):
        await layer.group_send_once("g", {"type": object()}, b"a")


async def test_cancelled_call_can_be_made_again() -> None:
    layer = InMemoryChannelLayer()
    async with layer.subscribe("g") as events:
        with trio.CancelScope() as scope:
            scope.cancel()
            await layer.group_send_once("g", {"type": "t", "n": 1}, b"a")
        assert scope.cancelled_caught
        await layer.group_send_once("g", {"type": "t", "n": 2}, b"a")
        assert await numbers(events, 1) == [2]


async def test_layer_that_does_not_override_it_sends_twice() -> None:
    class Forgetful(InMemoryChannelLayer):
        group_send_once = ChannelLayer.group_send_once

    layer = Forgetful()
    async with layer.subscribe("g") as events:
        for n in (1, 2):
            await layer.group_send_once("g", {"type": "t", "n": n}, b"a")
        assert await numbers(events, 2) == [1, 2]


def test_oldest_identities_are_forgotten() -> None:
    identities = Identities(remembered=2)
    for identity in (b"a", b"b", b"b", b"c"):
        identities.add(identity)
    assert [identity in identities for identity in (b"a", b"b", b"c")] == [False, True, True]
    assert repr(identities) == "<Identities of 2 messages>"
