"""Named channels: each message goes to one receiver of all processes, once, whatever is cancelled or dies."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable
from trio_channels.layers.redis import RedisStreamsChannelLayer, named_channel
from trio_channels.layers.redis.session import IDLE_NAMED_CHANNELS

from ..test_contract import cancelled_at_checkpoint
from .proxy import open_proxy
from .world import connections, make_layers, redis, until


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def stream_of(layer: RedisStreamsChannelLayer, channel: str = "jobs") -> str:
    return f"{{{layer.prefix}:0}}:c:{channel}"


def job(number: int) -> dict[str, Any]:
    return {"type": "job", "n": number}


async def receive(layer: RedisStreamsChannelLayer, channel: str = "jobs") -> int:
    with trio.fail_after(10):
        return int((await layer.receive(channel))["n"])


async def backlog(url: str, layer: RedisStreamsChannelLayer) -> tuple[int, int]:
    """How many messages the stream holds, and how many are pending."""
    stream = stream_of(layer)
    return await redis(url, "XLEN", stream), (await redis(url, "XPENDING", stream, "w"))[0]


async def test_receivers_of_processes_compete_for_messages(url: str) -> None:
    sender, *receivers = make_layers(url, url, url)
    got: dict[int, list[int]] = {0: [], 1: []}

    async def receiver(number: int) -> None:
        while True:
            got[number].append((await receivers[number].receive("jobs"))["n"])

    async with sender, receivers[0], receivers[1], trio.open_nursery() as nursery:
        for number in (0, 1, 0, 1):
            nursery.start_soon(receiver, number)
        for number in range(200):
            await sender.send("jobs", job(number))
        await until(lambda: len(got[0]) + len(got[1]) == 200)
        nursery.cancel_scope.cancel()
    assert sorted(got[0] + got[1]) == list(range(200))
    assert got[0]
    assert got[1]
    assert got == {number: sorted(numbers) for number, numbers in got.items()}


async def test_message_that_was_returned_is_acknowledged_and_gone(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        for number in range(3):
            await layer.send("jobs", job(number))
        assert await receive(layer) == 0
        assert await backlog(url, layer) == (2, 0)


async def test_message_waits_for_a_receiver_of_another_process(url: str) -> None:
    [first] = make_layers(url)
    async with first:
        await first.send("jobs", job(1))
    async with RedisStreamsChannelLayer(hosts=[url], prefix=first.prefix) as second:
        assert await receive(second) == 1


async def test_full_channel_is_one_whose_backlog_has_its_capacity(url: str) -> None:
    first, second = make_layers(url, url, capacity=3)
    async with first, second:
        for _ in range(3):
            for number in range(3):
                await first.send("jobs", job(number))
            with pytest.raises(ChannelFull, match="3 messages"):
                await second.send("jobs", job(3))
            assert [await receive(second) for _ in range(3)] == [0, 1, 2]
        assert (first.statistics().sent, second.statistics().full) == (9, 3)


async def test_cancelled_receive_loses_no_message(url: str) -> None:
    sender, receiver = make_layers(url, url)
    async with sender, receiver:
        await sender.send("jobs", job(0))
        got: list[int] = [await receive(receiver)]
        before = await connections(url)
        for number in range(1, 1000):
            await sender.send("jobs", job(number))
            with cancelled_at_checkpoint(number) as scope:
                got.append(await receive(receiver))
            if not scope.cancel_called:
                break
        while len(got) <= number:
            got.append(await receive(receiver))
        assert got == list(range(number + 1))
        assert await backlog(url, receiver) == (0, 0)

        async def as_before() -> bool:
            return await connections(url) == before

        await until(as_before)


async def test_receiver_cancelled_while_it_waits_loses_no_message(url: str) -> None:
    sender, receiver = make_layers(url, url)
    async with sender, receiver:
        got: list[int] = []

        async def one() -> None:
            got.append((await receiver.receive("jobs"))["n"])

        for number in range(50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one)
                await trio.testing.wait_all_tasks_blocked()
                await sender.send("jobs", job(number))
                nursery.cancel_scope.cancel()
        while len(got) < 50:
            got.append(await receive(receiver))
        assert got == list(range(50))


async def test_messages_of_a_lost_connection_are_delivered_first(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        sender, receiver = make_layers(url, proxy.url)
        async with sender, receiver:
            for number in range(3):
                await sender.send("jobs", job(number))
            proxy.lose_reply_to(b"BLOCK\r\n$4\r\n1000")
            assert [await receive(receiver) for _ in range(3)] == [0, 1, 2]
            assert proxy.lost_replies == 1


async def test_lost_reply_neither_loses_nor_doubles_the_message(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        sender, receiver = make_layers(url, proxy.url)
        async with sender, receiver:
            for number in range(5):
                await sender.send("jobs", job(number))
            got = []
            for _ in range(5):
                proxy.lose_reply_to(b":c:jobs:note:")
                got.append(await receive(receiver))
            assert got == [0, 1, 2, 3, 4]
            assert proxy.lost_replies == 5
            assert await backlog(url, receiver) == (0, 0)


async def test_accepted_message_whose_reply_is_lost_comes_once(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        sender, receiver = make_layers(proxy.url, url)
        async with sender, receiver:
            for number in range(5):
                proxy.lose_reply_to(b":seen:jobs")
                await sender.send("jobs", job(number))
            await sender.send("jobs", job(5))
            assert [await receive(receiver) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
            assert proxy.lost_replies == 5


async def test_message_in_an_outage_is_kept_for_the_next_receiver(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_channel, "BLOCK", 0.1)
    async with open_proxy(port_of(url)) as proxy:
        sender, receiver = make_layers(url, proxy.url, timeout=1)
        async with sender, receiver:
            await sender.send("jobs", job(0))
            assert await receive(receiver) == 0
            proxy.stall()
            await sender.send("jobs", job(1))
            with pytest.raises(ChannelLayerUnavailable):
                await receive(receiver)
            proxy.resume()
            assert await receive(receiver) == 1


async def test_messages_of_a_process_that_died_are_taken_over_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_channel, "CLAIM_AFTER", 0.0)
    monkeypatch.setattr(named_channel, "LOOK_INTERVAL", 0.0)
    [layer] = make_layers(url)
    async with layer:
        for number in range(4):
            await layer.send("jobs", job(number))
        await redis(url, "XGROUP", "CREATE", stream_of(layer), "w", "0")
        for _ in range(2):
            await redis(url, "XREADGROUP", "GROUP", "w", "dead", "COUNT", 1, "STREAMS", stream_of(layer), ">")
        assert sorted([await receive(layer) for _ in range(4)]) == [0, 1, 2, 3]
        assert await backlog(url, layer) == (0, 0)


async def test_a_message_taken_over_is_not_returned_twice(url: str) -> None:
    first, second = make_layers(url, url)
    async with first, second:
        await first.send("jobs", job(0))
        named = await first._session().named("jobs")
        entry = await named._read()
        assert entry is not None
        named._held = entry  # as if its acknowledgement had been under way for long
        other = second._session().process
        await redis(url, "XCLAIM", stream_of(first), "w", other, 0, entry[0])
        await first.send("jobs", job(1))
        assert await receive(first) == 1
        assert await receive(second) == 0


async def test_deleted_stream_is_made_anew_under_a_waiting_receiver(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, trio.open_nursery() as nursery:
        got: list[int] = []

        async def one() -> None:
            got.append(await receive(layer))

        nursery.start_soon(one)
        await until(lambda: _exists(url, stream_of(layer)))
        await redis(url, "DEL", stream_of(layer))
        await layer.send("jobs", job(1))
        await until(lambda: got == [1])


async def _exists(url: str, key: str) -> bool:
    return bool(await redis(url, "EXISTS", key))


async def test_rubbish_in_the_stream_is_skipped_and_counted(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        for fields in (("rubbish", "x"), ("b", "x"), ("b", b"\x02x")):
            await redis(url, "XADD", stream_of(layer), "*", *fields)
        await layer.send("jobs", job(1))
        assert await receive(layer) == 1
        assert sum(shard.undecodable for shard in layer.shard_statistics()) == 3
        assert await backlog(url, layer) == (0, 0)


async def test_expired_messages_are_skipped_and_make_room(url: str) -> None:
    [layer] = make_layers(url, expiry=10, capacity=3)
    async with layer:
        for number in range(3):
            # As if sent in 1970.
            blob = layer._codec.pack(3, "jobs", job(number))
            await redis(url, "XADD", stream_of(layer), f"{number + 1}-0", "b", blob)
        await layer.send("jobs", job(3))
        assert layer.statistics().expired == 3
        assert await receive(layer) == 3
        await redis(url, "DEL", stream_of(layer))
        await redis(url, "XADD", stream_of(layer), "1-0", "b", layer._codec.pack(3, "jobs", job(0)))
        await layer.send("jobs", job(4))
        assert await receive(layer) == 4
        assert layer.statistics().expired == 4


async def test_receivers_of_one_process_take_turns(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        got: list[int] = []

        async def one() -> None:
            got.append(await receive(layer))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(5):
                await layer.send("jobs", job(number))
        assert got == [0, 1, 2, 3, 4]


async def test_only_some_named_channels_keep_their_connection(url: str) -> None:
    [layer] = make_layers(url)
    before = await connections(url)
    async with layer:
        for number in range(IDLE_NAMED_CHANNELS + 10):
            await layer.send(f"jobs-{number}", job(number))
            assert await receive(layer, f"jobs-{number}") == number
        assert len(layer._session()._named) <= IDLE_NAMED_CHANNELS + 1

        async def few() -> bool:
            return await connections(url) <= before + 2 + IDLE_NAMED_CHANNELS + 1

        await until(few)

    async def as_before() -> bool:
        return await connections(url) == before

    await until(as_before)
