"""The promises of every channel layer's work queues to workers."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from trio_channels.exceptions import InvalidChannelLayerError, InvalidNameError
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer, Delivery, QueueSize, WorkSource
from trio_channels.layers.memory import work
from trio_channels.layers.redis import RedisStreamsChannelLayer, work_source

from ..redis_server import RedisServer
from .test_contract import cancelled_at_checkpoint

_prefixes = itertools.count()


@pytest.fixture(params=["memory", "redis"])
async def layer(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[ChannelLayer]:
    """A layer of each kind, open."""
    if request.param == "memory":
        made: ChannelLayer = InMemoryChannelLayer()
    else:
        made = RedisStreamsChannelLayer(hosts=[redis_server.url], prefix=f"work-{next(_prefixes)}")
    async with made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_source, "LOOK_INTERVAL", 0.05)


async def send(layer: ChannelLayer, *numbers: int) -> None:
    for number in numbers:
        await layer.send("jobs", {"type": "job", "n": number})


async def take(source: WorkSource, count: int, at_most: int = 10) -> list[Delivery]:
    taken: list[Delivery] = []
    with trio.fail_after(20):
        while len(taken) < count:
            taken += await source.take(at_most)
    return taken


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [delivery.message["n"] for delivery in deliveries]


async def test_messages_are_taken_in_order_and_never_more_than_asked_for(layer: ChannelLayer) -> None:
    await send(layer, 0, 1, 2, 3, 4)
    async with layer.work_queue("jobs").serve() as source:
        first = await source.take(2)
        assert 1 <= len(first) <= 2
        rest = await take(source, 5 - len(first))
    assert numbers(first + rest) == [0, 1, 2, 3, 4]
    assert [delivery.count for delivery in first + rest] == [1] * 5
    assert len({delivery.id for delivery in first + rest}) == 5


async def test_what_is_done_does_not_come_again(layer: ChannelLayer) -> None:
    await send(layer, 0, 1)
    async with layer.work_queue("jobs").serve() as source:
        for delivery in await take(source, 2):
            assert await source.done(delivery) is True
    await send(layer, 2)
    async with layer.work_queue("jobs").serve() as source:
        assert numbers(await take(source, 1)) == [2]


async def test_unsettled_message_goes_to_the_next_as_one_delivery(layer: ChannelLayer) -> None:
    await send(layer, 0, 1)
    async with layer.work_queue("jobs").serve() as source:
        left = await take(source, 2)
    async with layer.work_queue("jobs").serve() as source:
        again = await take(source, 2)
    assert sorted((each.id, each.count) for each in again) == sorted((each.id, 1) for each in left)


async def test_what_is_to_be_tried_again_comes_again_and_is_counted(layer: ChannelLayer) -> None:
    await send(layer, 0)
    async with layer.work_queue("jobs").serve() as source:
        for count in (1, 2, 3):
            [delivery] = await take(source, 1)
            assert (delivery.count, delivery.taken_from) == (count, None)
            await source.retry(delivery, 0)


async def test_what_is_to_be_tried_again_later_does_not_hold_up_the_others(layer: ChannelLayer) -> None:
    await send(layer, 0)
    async with layer.work_queue("jobs").serve() as source:
        [delivery] = await take(source, 1)
        await source.retry(delivery, 0.3)
        await send(layer, 1)
        assert numbers(await take(source, 1)) == [1]
        assert numbers(await take(source, 1)) == [0]


async def test_dead_letter_does_not_come_again_and_tells_why(layer: ChannelLayer) -> None:
    await send(layer, 0, 1)
    queue = layer.work_queue("jobs")
    async with queue.serve() as source:
        first, second = await take(source, 2)
        await source.bury(first, "ValueError: boom")
        await source.done(second)
    [letter] = await queue.dead_letters()
    assert (letter.message, letter.deliveries, letter.why) == ({"type": "job", "n": 0}, 1, "ValueError: boom")


async def test_size_counts_what_is_not_done_and_dead_letters(layer: ChannelLayer) -> None:
    queue = layer.work_queue("jobs")
    assert await queue.size() == QueueSize(0, 0)
    await send(layer, 0, 1, 2, 3)
    assert await queue.size() == QueueSize(4, 0)
    async with queue.serve() as source:
        first, second, third = await take(source, 3, at_most=1)
        assert await queue.size() == QueueSize(4, 0)
        await source.done(first)
        await source.bury(second, "because")
        await source.retry(third, 60)
        assert await queue.size() == QueueSize(2, 1)
    assert await queue.size() == QueueSize(2, 1)


async def test_dead_letters_are_sent_again_as_new_messages(layer: ChannelLayer) -> None:
    await send(layer, 0, 1, 2)
    queue = layer.work_queue("jobs")
    async with queue.serve() as source:
        for delivery in await take(source, 3):
            await source.bury(delivery, "")
    first, *_ = await queue.dead_letters(limit=1)
    assert await queue.requeue(first.id) == 1
    assert await queue.requeue(first.id) == 0
    assert await queue.requeue() == 2
    assert await queue.dead_letters() == []
    async with queue.serve() as source:
        again = await take(source, 3)
    assert [(each.message["n"], each.count) for each in again] == [(0, 1), (1, 1), (2, 1)]


async def test_dead_letters_can_be_forgotten(layer: ChannelLayer) -> None:
    await send(layer, 0, 1, 2)
    queue = layer.work_queue("jobs")
    assert await queue.discard() == 0
    async with queue.serve() as source:
        for delivery in await take(source, 3):
            await source.bury(delivery, "")
    first, *_ = await queue.dead_letters()
    assert await queue.discard(first.id) == 1
    assert [letter.message["n"] for letter in await queue.dead_letters() if letter.message] == [1, 2]
    assert await queue.discard() == 2
    assert await queue.dead_letters() == []


async def test_oldest_dead_letter_goes_when_there_are_too_many(
    layer: ChannelLayer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (work, work_source):
        monkeypatch.setattr(module, "DEAD_LETTERS", 2)
    queue = layer.work_queue("jobs")
    async with queue.serve() as source:
        await send(layer, *range(3))
        for delivery in await take(source, 3):
            await source.bury(delivery, "")
    assert [letter.message["n"] for letter in await queue.dead_letters() if letter.message] == [1, 2]
    assert caplog.text.count("jobs has 2 dead letters; the oldest was lost") == 1


async def test_taking_and_settling_cancelled_anywhere_lose_nothing(layer: ChannelLayer) -> None:
    settles: list[Callable[[WorkSource, Delivery], Any]] = [
        lambda source, delivery: source.done(delivery),
        lambda source, delivery: source.retry(delivery, 0),
        lambda source, delivery: source.bury(delivery, "enough"),
    ]
    queue = layer.work_queue("jobs")
    await send(layer, *range(90))
    for number in itertools.count(1):
        with cancelled_at_checkpoint(number) as scope:
            async with queue.serve(max_deliveries=1000) as source:
                for delivery in await source.take(3):
                    await settles[delivery.message["n"] % 3](source, delivery)
        if not scope.cancel_called:
            break
    assert number > 3
    seen = {letter.message["n"] for letter in await queue.dead_letters() if letter.message}
    assert all(n % 3 == 2 for n in seen)
    async with queue.serve(max_deliveries=1000) as source:
        await send(layer, 1000)
        while 1000 not in seen or len(seen | {n for n in range(90) if n % 3 == 0}) < 91:
            for delivery in await take(source, 1):
                seen.add(delivery.message["n"])
                await source.done(delivery)
    assert {n for n in range(90) if n % 3} <= seen


@pytest.mark.parametrize("name", ["", "with space", "local!channel", 5])
async def test_name_that_no_named_channel_can_have_is_refused(layer: ChannelLayer, name: Any) -> None:
    with pytest.raises(InvalidNameError, match="a named channel's name must be a str of 1 to 99"):
        layer.work_queue(name)


def test_layer_without_named_channels_says_so() -> None:
    class Plain(InMemoryChannelLayer):
        work_queue = ChannelLayer.work_queue

    with pytest.raises(InvalidChannelLayerError, match="Plain has no named channels for workers"):
        Plain().work_queue("jobs")


def test_repr_of_a_queue_in_memory_tells_what_is_in_it() -> None:
    queue = InMemoryChannelLayer().work_queue("jobs")
    assert repr(queue) == "<MemoryWorkQueue jobs, 0 to retry, 0 dead letters>"
