"""Entries read but not acknowledged: how many may stay, and when their loss shows that Redis went back in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, inbox, keys
from trio_channels.layers.redis.scripts import ACKNOWLEDGE_INBOX

from ...redis_server import RedisServer
from .proxy import open_proxy
from .world import make_layers, redis, until

OwnRedis = Callable[..., RedisServer]

WENT_BACK = Gap(None, "Redis went back in time")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def next_of(events: Any) -> Any:
    with trio.fail_after(30):
        return await anext(events)


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing is acknowledged before a part of the capacity has been read, or the inbox is inspected."""
    monkeypatch.setattr(keys, "LEASE", 5000.0)
    monkeypatch.setattr(inbox, "BLOCK", 1000.0)
    monkeypatch.setattr(inbox, "ACKNOWLEDGE_AFTER", 1000.0)
    monkeypatch.setattr(inbox, "LATE", 1000.0)
    return monkeypatch


async def length(url: str, layer: RedisStreamsChannelLayer) -> Any:
    [shard] = layer._session().shards
    return await redis(url, "XLEN", shard.keys.inbox)


async def pass_messages(layer: RedisStreamsChannelLayer, events: Any, *numbers: int) -> None:
    for number in numbers:
        await layer.group_send("room", {"type": "x", "n": number})
        assert await next_of(events) == {"type": "x", "n": number}


@pytest.mark.usefixtures("lingering")
async def test_hundredth_of_the_capacity_may_stay_in_the_inbox(url: str) -> None:
    [layer] = make_layers(url, inbox_capacity=1000)
    async with layer, layer.subscribe("room") as events:
        await pass_messages(layer, events, *range(10))
        assert await length(url, layer) == 10
        await pass_messages(layer, events, 10)

        async def empty() -> bool:
            return bool(await length(url, layer) == 0)

        await until(empty)


async def test_nothing_stays_in_an_inbox_where_nothing_happens(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        await pass_messages(layer, events, *range(10))

        async def empty() -> bool:
            return bool(await length(url, layer) == 0)

        await until(empty)


@pytest.mark.usefixtures("lingering")
@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("remains", [True, False])
async def test_what_was_read_and_has_gone_tells_that_the_server_went_back(
    url: str, remains: bool, acknowledged: bool
) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url)
        async with layer, layer.subscribe("room") as events:
            [shard] = layer._session().shards
            await pass_messages(layer, events, 1, 2)
            if not remains:
                [_, (entry_id, _)] = await redis(url, "XRANGE", shard.keys.inbox, "-", "+")
                assert await redis(url, "XDEL", shard.keys.inbox, entry_id) == 1
            shard.reader._ack += acknowledged  # as if an acknowledgement was sent and lost
            proxy.cut()
            await until(lambda: shard.reader.attachments == 2 and shard.reader.connected)
            if not remains:
                assert await next_of(events) == WENT_BACK
            await pass_messages(layer, events, 3)
            proxy.cut()
            await until(lambda: shard.reader.attachments == 3 and shard.reader.connected)
            await pass_messages(layer, events, 4)


@pytest.mark.usefixtures("lingering")
async def test_mark_that_was_read_and_replaced_is_no_sign_of_anything(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(url, proxy.url, inbox_capacity=3)
        async with first, second, second.subscribe("room") as events:
            [shard] = second._session().shards
            shard.reader._max_unacknowledged = 10
            await pass_messages(first, events, 1, 2, 3)
            for _ in range(2):
                await first.group_send("room", {"type": "x", "n": 4})
                assert await next_of(events) == Gap(1, "the inbox was full")
            proxy.stall()
            await first.group_send("room", {"type": "x", "n": 5})  # replaces the mark that has been read
            proxy.cut()
            proxy.resume()
            assert await next_of(events) == Gap(1, "the inbox was full")
            assert shard.delivery.gaps == 3


@pytest.mark.usefixtures("lingering")
async def test_lost_read_entries_are_noticed_behind_newer_messages(own_redis: OwnRedis) -> None:
    server = own_redis("--dbfilename", "copy.rdb")
    async with open_proxy(port_of(server.url)) as proxy:
        first, second = make_layers(server.url, proxy.url)
        async with first, second, second.subscribe("room") as events:
            [shard] = second._session().shards
            await redis(server.url, "SAVE")
            await pass_messages(first, events, 1, 2, 3)
            proxy.stall()
            server.kill()
            await trio.to_thread.run_sync(server.start)
            await first.group_send("room", {"type": "x", "n": 4})
            assert shard.reader._ack == shard.reader._ack_answered == 1  # the restored server has the same number
            proxy.resume()
            assert await next_of(events) == WENT_BACK
            assert await next_of(events) == {"type": "x", "n": 4}


async def test_lost_answer_to_an_acknowledgement_is_no_gap(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url)
        async with layer, layer.subscribe("room") as events:
            [shard] = layer._session().shards
            for number in range(5):
                await pass_messages(layer, events, number)
                proxy.lose_reply_to(ACKNOWLEDGE_INBOX.sha.encode())
                await until(lambda number=number: proxy.lost_replies == number + 1)
                await until(lambda number=number: shard.reader.attachments == number + 2 and shard.reader.connected)
            await pass_messages(layer, events, 5)
            assert shard.delivery.gaps == 0


@pytest.mark.usefixtures("lingering")
async def test_what_was_read_before_a_flush_is_not_lost_by_it(url: str) -> None:
    first, second = make_layers(url, url)
    async with first, second, second.subscribe("room") as events:
        await pass_messages(first, events, *range(7))
        assert await length(url, second) == 7
        await first.flush()
        assert await next_of(events) == Gap(0, "flushed")


async def test_what_comes_late_is_acknowledged_at_once_as_more_may_wait(
    url: str, lingering: pytest.MonkeyPatch
) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        await pass_messages(layer, events, 1)
        assert await length(url, layer) == 1
        lingering.setattr(inbox, "LATE", -1000.0)
        await pass_messages(layer, events, 2)

        async def empty() -> bool:
            return bool(await length(url, layer) == 0)

        await until(empty)


async def test_members_may_take_longer_than_the_time_limit(url: str, mock_clock: trio.testing.MockClock) -> None:
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(url, proxy.url)
        async with first, second, second.subscribe("room") as events:
            [shard] = second._session().shards
            proxy.stall()
            for number in range(5):
                await first.group_send("room", {"type": "x", "n": number})
            proxy.resume()
            for number in range(5):  # the first comes alone, as somebody waited for it
                assert await anext(events) == {"type": "x", "n": number}
                if number == 1:
                    mock_clock.jump(6.0)
            assert shard.reader.attachments == 1


async def test_reading_resumes_after_refused_acknowledgements(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        [shard] = layer._session().shards
        await redis(url, "SET", shard.keys.state, "of another type")
        await until(lambda: "WRONGTYPE" in (layer.shard_statistics()[0].problem or ""))
        await redis(url, "DEL", shard.keys.state)
        assert await next_of(events) == WENT_BACK  # the state of the inbox was deleted
        await pass_messages(layer, events, *range(3))


async def test_an_inbox_with_older_ids_is_read_from_its_beginning(url: str) -> None:
    [layer] = make_layers(url)
    older = """
        redis.call('DEL', KEYS[1])
        redis.call('XADD', KEYS[1], '1-1', 'new', '1')
        redis.call('XDEL', KEYS[1], '1-1')
        redis.call('PEXPIRE', KEYS[1], 30000)
    """
    async with layer, layer.subscribe("room") as events:
        [shard] = layer._session().shards
        await pass_messages(layer, events, *range(3))
        await redis(url, "EVAL", older, 1, shard.keys.inbox)
        await redis(url, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await next_of(events) == WENT_BACK
        await pass_messages(layer, events, *range(3))
