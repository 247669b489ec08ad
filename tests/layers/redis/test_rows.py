"""Slow members, tampered inboxes, many and large groups, churn, a clock that is set, an event loop that must run."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.layers.base import Gap
from trio_channels.layers.hub import Hub
from trio_channels.layers.mailbox import Mailbox
from trio_channels.layers.message import Counters, Envelope
from trio_channels.layers.redis import delivery as _delivery
from trio_channels.layers.redis import inbox, probe
from trio_channels.layers.redis import keys as _keys
from trio_channels.layers.redis.codec import CHANNEL, GROUP, EntryCodec
from trio_channels.layers.redis.delivery import Delivery
from trio_channels.layers.redis.inbox import LATE

from ..crowd import MANY, Crowd
from ..test_contract import tables
from .proxy import open_proxy
from .world import DEADLINE, keys, make_layers, redis, traffic, until


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_slow_member_misses_messages_and_nobody_else_does(url: str) -> None:
    first, second = make_layers(url, url, capacity=1000)
    async with first, second, traffic([first, second]) as world:
        with second.open_mailbox(prefix="slow") as slow:
            await second.group_add("room", slow.name)
            for _ in range(12):
                await world.publish(100)
            await world.settle()
            assert world.checker.faults() == []
            assert world.gaps == {}
            assert slow.statistics().waiting == 1000
            assert slow.statistics().dropped >= 2400 - 1000


# -- tampering --------------------------------------------------------------------------------------------------------


async def counts_what_was_added(url: str) -> bool:
    """Whether streams know how many entries were ever added to them: from Redis 7.0 on."""
    info = await redis(url, "INFO", "server")
    return int(info.partition(b"redis_version:")[2].partition(b".")[0]) >= 7


async def test_a_trimmed_inbox_is_a_gap_in_the_right_place(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only a message ends a read that waits at Redis.
    monkeypatch.setattr(_keys, "LEASE", 5000.0)
    monkeypatch.setattr(inbox, "BLOCK", 1000.0)
    monkeypatch.setattr(probe, "INTERVAL", 1000)
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(url, proxy.url)
        async with first, second, traffic([first, second]) as world:
            [shard] = second._session().shards
            await world.publish(50)
            await world.settle()

            async def acknowledged() -> bool:
                return bool(await redis(url, "XLEN", shard.keys.inbox) == 0)

            await until(acknowledged)  # the next read came with the acknowledgement, and waits
            proxy.stall()
            for _ in range(50):
                await first.group_send("room", world.checker.stamp("p0", "room"))
            assert await redis(url, "XTRIM", shard.keys.inbox, "MAXLEN", 10) > 30
            [[newest, _]] = await redis(url, "XREVRANGE", shard.keys.inbox, "+", "-", "COUNT", 1)
            # Then the reader's next message is late, and the reader inspects the inbox before it reads on.
            await until(lambda: shard.delivery.written_at(newest) < trio.current_time() - LATE)
            proxy.resume()
            await world.settle()
            members = ["l1-m0", "l1-m1", "l1-m2"]
            if await counts_what_was_added(url):
                assert world.checker.faults() == []
                assert world.gaps == {name: [Gap(None, "somebody has trimmed the inbox")] for name in members}
            else:  # before Redis 7.0 the reader cannot notice it, as the reference says
                assert [fault.partition(":")[0] for fault in world.checker.faults()] == members
                assert world.gaps == {}


async def test_forged_entries_in_traffic_reach_nobody_and_cost_nothing(url: str) -> None:
    first, second = make_layers(url, url, symmetric_encryption_keys=["secret"])
    forgeries = [
        ("t", "x-1", "b", EntryCodec().pack(GROUP, "room", {"type": "forged"}), "g", "1"),
        ("t", "x-2", "b", EntryCodec(keys=["guessed"]).pack(GROUP, "room", {"type": "forged"}), "g", "1"),
        ("x", "y"),
    ]
    async with first, second, traffic([first, second]) as world:
        [shard] = second._session().shards
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, 100)
            for number in range(30):
                await until(lambda number=number: world.delivered >= 20 * number)
                await redis(url, "XADD", shard.keys.inbox, "*", *forgeries[number % 3])
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}
        assert [shard.undecodable for shard in second.shard_statistics()] == [30]


# -- many groups ------------------------------------------------------------------------------------------------------


@pytest.mark.faults
async def test_ten_thousand_groups_return_after_flushall(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url, timeout=DEADLINE)
        groups = [f"group-{number}" for number in range(10_000)]
        async with layer:
            [shard] = layer._session().shards
            with layer.open_mailbox() as mailbox:
                async with trio.open_nursery() as nursery:
                    for group in groups:
                        nursery.start_soon(layer.group_add, group, mailbox.name)
                assert {f"g:{group}" for group in groups} <= await keys(url, layer)
                await redis(url, "FLUSHALL")
                proxy.cut()
                await until(
                    lambda: shard.reader.attachments == 2 and shard.reader.connected and shard.memberships.settled
                )
                assert {f"g:{group}" for group in groups} <= await keys(url, layer)
                assert (await mailbox.get()) == Gap(None, "the inbox was gone")
                await layer.group_send("group-9999", {"type": "x"})
                with trio.fail_after(20):
                    assert await mailbox.get() == {"type": "x"}
            await until(lambda: shard.memberships.settled)
            assert not {key for key in await keys(url, layer) if key.startswith("g:")}


async def churn(url: str, changes: int) -> None:
    first, second = make_layers(url, url)
    async with first, second, traffic([first, second]) as world:
        [shard] = second._session().shards
        await world.settle()
        before = tables(second), len(await keys(url, second)), trio.lowlevel.current_statistics().tasks_living

        async def come_and_go(worker: int) -> None:
            with second.open_mailbox() as mailbox:
                for number in range(changes // 20):
                    group = f"churn-{(worker + number) % 97}"
                    await second.group_add(group, mailbox.name)
                    if number % 3:
                        await second.group_discard(group, mailbox.name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, changes // 250)
            for worker in range(10):
                nursery.start_soon(come_and_go, worker)
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}
        await until(lambda: shard.memberships.settled)
        gc.collect()
        after = tables(second), len(await keys(url, second)), trio.lowlevel.current_statistics().tasks_living
        assert after == before
        assert shard.memberships._known == {"room"}


async def test_groups_that_come_and_go_beside_traffic_leave_nothing(url: str) -> None:
    await churn(url, 2_000)


@pytest.mark.faults
async def test_fifty_thousand_joins_and_leaves_leave_nothing(url: str) -> None:
    await churn(url, 50_000)


# -- large groups -----------------------------------------------------------------------------------------------------


async def begin_to_send(crowd: Crowd, nursery: trio.Nursery) -> None:
    """Return when the first member has the message, and the last has not."""
    await crowd.join()
    nursery.start_soon(crowd.send, 1)
    await crowd.at(0)
    assert not crowd.mailboxes[-1].statistics().waiting


async def test_attaching_again_waits_for_a_large_group(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        with ExitStack() as stack:
            crowd = Crowd(layer, stack)
            async with trio.open_nursery() as nursery:
                await begin_to_send(crowd, nursery)
                layer._session().shards[0].reader.attach_again("a test")
            await until(lambda: layer.shard_statistics()[0].gaps == 1)
            assert crowd.take_items() == [[{"type": "test.message", "n": 1}, Gap(None, "a test")]] * MANY


async def test_closing_waits_for_a_large_group(url: str) -> None:
    [layer] = make_layers(url)
    with ExitStack() as stack:
        async with layer:
            crowd = Crowd(layer, stack)
            async with trio.open_nursery() as nursery:
                await begin_to_send(crowd, nursery)
        assert crowd.take() == [[1]] * MANY


@pytest.mark.parametrize("answer", ["to a channel", "to a small group", "to a large group"])
async def test_messages_of_another_shard_wait_for_a_large_group(answer: str) -> None:
    hub = Hub()
    question, others = Clocks(hub), Clocks(hub)
    first, *_, last = [hub.open(mailbox(f"specific!{number}")) for number in range(MANY)]
    for member in hub.mailboxes.values():
        hub.join("crowd", member)
        hub.join("other crowd", member)
    hub.join("small", last)
    kind, name = {
        "to a channel": (CHANNEL, last.name),
        "to a small group": (GROUP, "small"),
        "to a large group": (GROUP, "other crowd"),
    }[answer]

    async def deliver(clocks: Clocks, *entry: Any) -> None:
        rest = clocks.delivery.deliver(*entry)
        assert rest is not None
        await rest

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver, question, *question.write(GROUP, "crowd", number=1))
        while not first.statistics().waiting:
            await trio.lowlevel.checkpoint()
        assert not last.statistics().waiting
        with trio.CancelScope() as scope:
            scope.cancel()  # has no effect: the delivery of an entry that was read is shielded
            await deliver(others, *others.write(kind, name, number=2))
    assert [item["n"] for item in iter(last.get_nowait, None)] == [1, 2]  # type: ignore[index]
    assert others.delivery.deliver(*others.write(kind, "nobody", number=3)) is None


@pytest.mark.parametrize("name", ["small", "other crowd"])
async def test_message_that_waited_for_its_turn_is_not_for_later_members(name: str) -> None:
    hub = Hub()
    question, others = Clocks(hub), Clocks(hub)
    first, *_, last = [hub.open(mailbox(f"specific!{number}")) for number in range(MANY)]
    for member in hub.mailboxes.values():
        hub.join("crowd", member)
        hub.join("other crowd", member)
    hub.join("small", last)

    async def ask() -> None:
        rest = question.delivery.deliver(*question.write(GROUP, "crowd", number=1))
        assert rest is not None
        await rest

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        while not first.statistics().waiting:
            await trio.lowlevel.checkpoint()
        rest = others.delivery.deliver(*others.write(GROUP, name, number=2))
        assert rest is not None
        others.generation = b"2"
        await rest
    assert [item["n"] for item in iter(last.get_nowait, None)] == [1]  # type: ignore[index]


@pytest.mark.parametrize("way", ["leave", "flush"])
async def test_delivery_in_parts_ends_when_the_group_is_empty(way: str) -> None:
    hub = Hub()
    members = [hub.open(mailbox(f"specific!{number}")) for number in range(MANY)]
    for member in members:
        hub.join("crowd", member)

    async def empty_and_join_again() -> None:
        if way == "flush":
            hub.flush()
        else:
            for member in members:
                hub.leave("crowd", member.name)
        hub.join("crowd", members[-1])

    async with hub.turn(), trio.open_nursery() as nursery:
        nursery.start_soon(empty_and_join_again)
        await hub.fan_out_in_parts("crowd", Envelope({"type": "x"}, trio.current_time() + 60))
    assert not members[-1].statistics().waiting


# -- clocks -----------------------------------------------------------------------------------------------------------

HOUR = 3600.0


def mailbox(name: str) -> Mailbox:
    return Mailbox(name, capacity=10, overflow="drop_newest", counters=Counters())


class Clocks:
    """A delivery into one mailbox, and a Redis whose clock can be set."""

    def __init__(self, hub: Hub | None = None) -> None:
        self.now = 1_800_000_000.0
        self._hub = hub or Hub()
        self._codec = EntryCodec()
        self._numbers = iter(range(1000))
        self.generation = b"1"
        self.delivery = Delivery(
            name="clocks",
            hub=self._hub,
            codec=self._codec,
            mine=lambda group: True,
            is_current=lambda group, generation: generation == self.generation,
            is_home=True,
            expiry=60.0,
            on_probe=lambda number: None,
            on_flush=lambda: None,
            on_membership=lambda payload: None,
        )
        self.mailbox = self._hub.open(mailbox("m"))
        self._hub.join("room", self.mailbox)
        self.look()

    def look(self) -> None:
        """Tell the delivery the time of Redis' clock."""
        seconds, fraction = divmod(self.now, 1)
        self.delivery.see_time([b"%d" % seconds, b"%d" % (fraction * 1e6)])

    def write(self, kind: int = GROUP, name: str = "room", number: int | None = None) -> tuple[bytes, list[bytes]]:
        """An entry, with the id that Redis gives it."""
        number = next(self._numbers) if number is None else number
        blob = self._codec.pack(kind, name, {"type": "x", "n": number})
        return b"%d-0" % (self.now * 1000), [b"t", b"a-%d" % number, b"b", blob, b"g", self.generation]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_clock_that_is_set_by_an_hour_expires_nothing(step: float) -> None:
    clocks = Clocks()
    before = clocks.write()
    clocks.now += step
    clocks.look()
    clocks.delivery.deliver(*before)
    clocks.delivery.deliver(*clocks.write())
    assert [clocks.mailbox.get_nowait()["n"] for _ in range(2)] == [0, 1]  # type: ignore[index]


async def test_messages_expire_after_the_clock_was_set(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clocks = Clocks()
    for _ in range(2):
        entry = clocks.write()
        await trio.sleep(61)
        clocks.now += 61
        clocks.look()
        clocks.delivery.deliver(*entry)
        assert clocks.mailbox.get_nowait() == Gap(1, "expired")
        clocks.now += HOUR
        clocks.look()


async def test_redis_whose_clock_is_an_hour_off_ours_loses_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, ahead = Delivery.see_time, 0

    def see_time(delivery: Delivery, time: list[bytes]) -> None:
        original(delivery, [b"%d" % (int(time[0]) + ahead), time[1]])

    monkeypatch.setattr(_delivery.Delivery, "see_time", see_time)
    first, second = make_layers(url, url)
    async with first, second, traffic([first, second]) as world:
        for ahead in (0, 3600):  # noqa: B007 - `see_time` reads it
            await world.publish(50)
            await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}


# -- the event loop ---------------------------------------------------------------------------------------------------


async def test_while_redis_is_a_black_hole_the_loop_goes_on(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url, timeout=DEADLINE)
        async with layer:
            [shard] = layer._session().shards
            proxy.stall()
            async with trio.open_nursery() as senders:
                for _ in range(500):
                    senders.start_soon(layer.group_send, "room", {"type": "x"})
                for _ in range(50):  # each sleep is a turn of the loop, in which it also waits for I/O
                    await trio.sleep(0.001)
                pipeline = shard.pipeline.statistics()
                assert pipeline.waiting + pipeline.unanswered >= 500  # all senders still wait, and the loop has run on
                proxy.resume()
