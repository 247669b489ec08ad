"""Two real processes on one Redis: one is killed, one is stopped, Redis is killed under both."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis import keys as _keys

from ...redis_server import RedisServer
from .process import GROUP, OtherProcess, other_process
from .world import Traffic, make_layers, redis, traffic, until

pytestmark = pytest.mark.faults

OwnRedis = Callable[..., RedisServer]

#: Seconds that a lease is shortened to; longer than a process that lives may be kept waiting on a busy machine.
LEASE = 4.0


@asynccontextmanager
async def two_processes(
    url: str, *, members: int, **options: Any
) -> AsyncIterator[tuple[RedisStreamsChannelLayer, Traffic, OtherProcess]]:
    """This process and another one, with so many members each."""
    [layer] = make_layers(url, **options)
    async with (
        layer,
        traffic([layer], members=members) as world,
        other_process(world.checker, url, name="other", members=members, prefix=layer.prefix, **options) as other,
    ):
        yield layer, world, other


async def settle(world: Traffic, other: OtherProcess) -> None:
    """Wait until everything that will come has come, here and there; from here and from there."""
    with trio.fail_after(60):
        while True:
            n = await world._send(0, GROUP)
            await other.tell("await", publisher="p0", n=n)
            with trio.move_on_after(1):
                await until(lambda n=n: other.came.get("p0", -1) >= n and all_here_have(world, "p0", n))
                break
        while True:
            other.published = trio.Event()
            await other.tell("publish", count=1)
            await other.published.wait()
            n = world.checker.streams["other", GROUP].count - 1
            await other.tell("await", publisher="other", n=n)
            with trio.move_on_after(1):
                await until(lambda n=n: other.came.get("other", -1) >= n and all_here_have(world, "other", n))
                break
    await other.report()


def all_here_have(world: Traffic, publisher: str, n: int) -> bool:
    here = [receiver for receiver in world.checker.receivers if receiver.name.startswith("l0")]
    return all(world._last[receiver.name].get((publisher, GROUP), -1) >= n for receiver in here)


async def test_redis_killed_ten_times_under_two_processes_costs_nothing(own_redis: OwnRedis) -> None:
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    chance = random.Random(10)
    async with two_processes(server.url, members=100) as (_, world, other):
        for _ in range(10):
            other.published = trio.Event()
            begin = world.delivered + chance.randrange(150) * 100
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.publish, 100)
                await other.tell("publish", count=100)
                await until(lambda begin=begin: world.delivered >= begin)
                server.kill()
                await trio.to_thread.run_sync(server.start)
                with trio.fail_after(60):
                    await other.published.wait()
        await settle(world, other)
        assert world.checker.faults() == []
        assert world.gaps == {}
        assert not any(item["type"] == "channel.layer.gap" for items in other.items for item in items)
        assert [published.raised for published in world.checker.streams.values()] == [set(), set()]


async def test_killed_process_costs_others_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", LEASE)
    async with two_processes(url, members=20, timeout=LEASE / 2) as (layer, world, other):
        process = other.process
        await redis(url, "HSET", f"{{{layer.prefix}:0}}:g:empty-but-for-the-dead", process, "1")
        await redis(url, "PEXPIRE", f"{{{layer.prefix}:0}}:g:empty-but-for-the-dead", 2000)
        await other.tell("publish", count=100_000)
        await until(lambda: world.delivered > 2000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, 300)
            await until(lambda: world.delivered > 5000)
            other.kill()
        other.forget_members()
        await world.publish(50)

        async def nothing_left() -> bool:
            await world.publish(1)  # who sends to a group finds out who is dead
            keys = await redis(url, "KEYS", f"{{{layer.prefix}:*")
            groups = [key for key in keys if b":g:" in key]
            members = {member for key in groups for member in await redis(url, "HKEYS", key)}
            return process.encode() not in b" ".join(keys) and process.encode() not in members

        await until(nothing_left)
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}


async def test_process_stopped_beyond_its_lease_gets_a_gap(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", LEASE)
    async with two_processes(url, members=20) as (layer, world, other):
        inbox = f"{{{layer.prefix}:0}}:i:{other.process}"
        await world.publish(100)
        other.kill(signal.SIGSTOP)
        try:
            await world.publish(100)  # these wait in its inbox, until the lease ends

            async def lapsed() -> bool:
                return not await redis(url, "EXISTS", inbox)

            await until(lapsed)
            await world.publish(100)
        finally:
            other.kill(signal.SIGCONT)
        await settle(world, other)
        assert world.checker.faults() == []
        assert world.gaps == {}
        for items in other.items:
            assert [item["reason"] for item in items if item["type"] == "channel.layer.gap"] == ["the inbox was gone"]


async def test_process_stopped_for_less_than_its_lease_gets_everything(url: str) -> None:
    async with two_processes(url, members=20) as (_, world, other):
        await world.publish(100)
        other.kill(signal.SIGSTOP)
        try:
            await world.publish(500)
        finally:
            other.kill(signal.SIGCONT)
        await settle(world, other)
        assert world.checker.faults() == []
        assert not any(item["type"] == "channel.layer.gap" for items in other.items for item in items)
