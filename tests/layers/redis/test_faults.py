"""A Redis that dies, loses data, hangs, or loses replies. The delivery checker's stamped messages show the effects."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import inbox as _reader
from trio_channels.layers.redis import probe
from trio_channels.layers.redis.hosts import parse_host

from ...redis_server import RedisServer
from .proxy import open_proxy
from .world import DEADLINE, Traffic, keys, make_layers, redis, traffic, until

pytestmark = pytest.mark.slow

OwnRedis = Callable[..., RedisServer]

KEEPS_EVERYTHING = ("--appendonly", "yes", "--appendfsync", "always")


async def kill_and_restart(server: RedisServer) -> None:
    server.kill()
    await trio.to_thread.run_sync(server.start)


async def kill_in_traffic(server: RedisServer, world: Traffic, *, times: int, seed: int, messages: int = 150) -> None:
    """Kill the server at random moments of its traffic; the checker records the outcome of each publish."""
    chance = random.Random(seed)
    members = len(world.checker.receivers)
    for _ in range(times):
        begin = world.delivered + chance.randrange(messages) * members
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, messages)
            await until(lambda begin=begin: world.delivered >= begin)
            await kill_and_restart(server)


# -- kill -9 ----------------------------------------------------------------------------------------------------------


async def check_that_nothing_is_lost(server: RedisServer, *, members: int, times: int) -> None:
    first, second = make_layers(server.url, server.url)
    async with first, second, traffic([first, second], members=members) as world:
        await kill_in_traffic(server, world, times=times, seed=times)
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}
        assert [published.raised for published in world.checker.streams.values()] == [set(), set()]


async def test_killed_redis_that_keeps_its_data_costs_nothing(own_redis: OwnRedis) -> None:
    await check_that_nothing_is_lost(own_redis(*KEEPS_EVERYTHING), members=5, times=1)


@pytest.mark.faults
async def test_redis_killed_ten_times_among_200_members_costs_nothing(own_redis: OwnRedis) -> None:
    await check_that_nothing_is_lost(own_redis(*KEEPS_EVERYTHING), members=100, times=10)


async def check_that_every_hole_is_explained(server: RedisServer, *, members: int, times: int) -> None:
    first, second = make_layers(server.url, server.url)
    async with first, second, traffic([first, second], members=members) as world:
        for number in range(times):
            await kill_in_traffic(server, world, times=1, seed=number)
            await world.settle()  # a reader that has not come back yet takes two deaths for one
        assert world.checker.faults() == []
        assert {len(gaps) for gaps in world.gaps.values()} == {times}
        assert len(world.gaps) == 2 * members


async def test_killed_redis_without_persistence_is_reported(own_redis: OwnRedis) -> None:
    await check_that_every_hole_is_explained(own_redis(), members=5, times=1)


@pytest.mark.faults
async def test_each_kill_without_persistence_is_a_gap(own_redis: OwnRedis) -> None:
    await check_that_every_hole_is_explained(own_redis(), members=100, times=10)


# -- lost data --------------------------------------------------------------------------------------------------------


async def test_after_flushall_each_member_gets_one_gap(own_redis: OwnRedis) -> None:
    server = own_redis()
    first, second = make_layers(server.url, server.url)
    async with first, second, traffic([first, second], groups=("one", "two")) as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, 200)
            await until(lambda: world.delivered > 100)
            await redis(server.url, "FLUSHALL")
        await world.settle()
        assert world.checker.faults() == []
        assert [len(world.gaps[receiver.name]) for receiver in world.checker.receivers] == [1] * 6
        assert {"g:one", "g:two"} <= await keys(server.url, first)


async def test_member_that_no_group_has_is_told_of_lost_data_too(own_redis: OwnRedis) -> None:
    server = own_redis()
    [layer] = make_layers(server.url)
    async with layer:
        with layer.open_mailbox() as mailbox:
            await redis(server.url, "FLUSHALL")
            with trio.fail_after(DEADLINE):
                assert await mailbox.get() == Gap(None, "the inbox was gone")
            await layer.send(mailbox.name, {"type": "after"})
            with trio.fail_after(DEADLINE):
                assert await mailbox.get() == {"type": "after"}


async def test_lapsed_lease_is_a_gap_and_memberships_return(url: str) -> None:
    first, second = make_layers(url, url)
    async with first, second, traffic([first, second]) as world:
        await world.publish(10)
        await world.settle()
        [inbox] = [shard.keys.inbox for shard in second._session().shards]
        await redis(url, "DEL", inbox)
        await first.group_send("room", world.checker.stamp("p0", "room"))  # the group drops the inbox that is gone
        await world.settle()
        assert world.checker.faults() == []
        assert set(world.gaps) == {"l1-m0", "l1-m1", "l1-m2"}
        assert all(gaps == [Gap(None, "the inbox was gone")] for gaps in world.gaps.values())


async def test_older_copy_is_noticed_behind_newer_messages(own_redis: OwnRedis) -> None:
    server = own_redis("--dbfilename", "copy.rdb")
    first, second = make_layers(server.url, server.url)
    async with first, second, traffic([first, second]) as world:
        await world.settle()
        await redis(server.url, "SAVE")
        await world.publish(20)
        await world.settle()
        await kill_and_restart(server)
        await world.settle()
        assert world.checker.faults() == []
        assert {gap.reason for gaps in world.gaps.values() for gap in gaps} == {"Redis went back in time"}
        assert [len(world.gaps[receiver.name]) for receiver in world.checker.receivers] == [1] * 6


# -- fail-over --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_the_inbox", [True, False])
async def test_reader_on_a_detached_node_follows_the_pipeline(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, has_the_inbox: bool
) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 0.1)
    old, new = own_redis(), own_redis()
    [layer] = make_layers(old.url)
    async with layer, traffic([layer]) as world:
        await world.settle()
        [shard] = layer._session().shards
        if has_the_inbox:
            await redis(new.url, "XADD", shard.keys.inbox, "1-1", "copy", "1")
        layer._topology._hosts = (parse_host(new.url),)  # type: ignore[attr-defined]
        clients = (await redis(old.url, "CLIENT", "LIST")).decode().splitlines()
        [link] = [line for line in clients if "cmd=xread" not in line and "cmd=client" not in line]
        await redis(old.url, "CLIENT", "KILL", "ID", link.split()[0].removeprefix("id="))
        await world.settle()
        assert world.checker.faults() == []
        assert [len(gaps) for gaps in world.gaps.values()] == [1] * 3
        assert "g:room" in await keys(new.url, layer)


# -- lost replies -----------------------------------------------------------------------------------------------------


async def check_that_lost_replies_cost_nothing(url: str, *, times: int) -> None:
    async with open_proxy(int(url.rpartition(":")[2])) as proxy:
        first, second = make_layers(proxy.url, url)
        async with first, second, traffic([first, second]) as world:
            for _ in range(times):
                proxy.lose_reply_to(b"stamped.message")
                await world.publish(3)
            await world.settle()
            assert proxy.lost_replies == times
            assert world.checker.faults() == []
            assert world.gaps == {}
            # Redis recognised each repeated command by its number, and ran none twice.
            assert all(shard.duplicates == 0 for layer in (first, second) for shard in layer.shard_statistics())


async def test_after_lost_replies_nothing_is_doubled_or_lost(url: str) -> None:
    await check_that_lost_replies_cost_nothing(url, times=5)


@pytest.mark.faults
async def test_after_sixty_lost_replies_nothing_is_doubled_or_lost(url: str) -> None:
    await check_that_lost_replies_cost_nothing(url, times=60)


async def test_connection_that_is_cut_again_and_again_costs_nothing(url: str) -> None:
    async with open_proxy(int(url.rpartition(":")[2])) as proxy:
        first, second = make_layers(proxy.url, proxy.url)
        async with first, second, traffic([first, second], groups=("one", "two")) as world:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.publish, 100)
                for number in range(10):
                    await until(lambda number=number: world.delivered > 200 * number)
                    proxy.cut()
            await world.settle()
            assert world.checker.faults() == []
            assert world.gaps == {}


# -- a black hole -----------------------------------------------------------------------------------------------------


async def test_black_holed_redis_raises_in_time_and_the_loop_lives(url: str) -> None:
    async with open_proxy(int(url.rpartition(":")[2])) as proxy:
        first, second = make_layers(proxy.url, url, timeout=1)
        async with first, second, traffic([first, second]) as world:
            await world.publish(5)
            await world.settle()
            proxy.stall()
            calls = [
                lambda: first.group_send("other", {"type": "x"}),
                lambda: first.send("jobs", {"type": "x"}),
                lambda: first.send("specific.0123!x", {"type": "x"}),
                lambda: first.group_add("new", "jobs"),
                lambda: first.receive("work"),
                first.flush,
            ]

            async def refused(call: Callable[[], object]) -> None:
                with pytest.raises(ChannelLayerUnavailable):
                    await call()  # type: ignore[misc]

            with trio.fail_after(DEADLINE):
                async with trio.open_nursery() as nursery:
                    for call in calls[:-1]:
                        nursery.start_soon(refused, call)
                await refused(calls[-1])
                await second.group_send("room", world.checker.stamp("p1", "room"))  # the other layer is not affected
            proxy.resume()
            await world.settle()
            assert world.checker.faults() == []


async def test_opening_and_closing_in_a_black_hole_do_not_hang(url: str) -> None:
    async with open_proxy(int(url.rpartition(":")[2])) as proxy:
        [layer] = make_layers(proxy.url, timeout=1)
        with trio.fail_after(DEADLINE):
            async with layer:
                proxy.stall()
            with pytest.raises(ChannelLayerUnavailable, match=r"within 1 seconds"):
                async with layer:
                    pytest.fail("opened in a black hole")
        proxy.resume()
        with trio.fail_after(DEADLINE):
            async with layer:
                await layer.group_send("room", {"type": "x"})


async def test_half_open_connection_is_given_up_and_another_one_opened(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reader, "BLOCK", 0.1)
    async with open_proxy(int(url.rpartition(":")[2])) as proxy:
        first, second = make_layers(proxy.url, url, timeout=1)
        async with first, second, traffic([first, second]) as world:
            before = proxy.connections
            proxy.stall()
            await until(lambda: proxy.connections >= before + 2)  # the reader's; the pipeline reconnects on a command
            proxy.cut()
            proxy.resume()
            await world.publish(5)
            await world.settle()
            assert world.checker.faults() == []
