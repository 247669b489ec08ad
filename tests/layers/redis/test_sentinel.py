"""Sentinel: a real master, replica and sentinels; fail-over in traffic, stale replicas, sentinels that do not help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer, pipeline
from trio_channels.layers.redis.connection import ConnectionLost
from trio_channels.layers.redis.hosts import Host, parse_host
from trio_channels.layers.redis.topology import Hosts

from ...ports import free_port
from ...redis_server import RedisServer
from ...redis_setups import SERVICE, SentinelSetup
from .proxy import open_proxy
from .world import make_layers, redis, traffic, until

pytestmark = pytest.mark.slow

OwnRedis = Callable[..., RedisServer]
Setup = Callable[..., SentinelSetup]

PASSWORD = "hunter2"


@pytest.fixture
def sentinel_setup(redis_server: RedisServer) -> Iterator[Setup]:
    """Starts a set-up for this test alone."""
    setups: list[SentinelSetup] = []

    def start(**options: Any) -> SentinelSetup:
        setup = SentinelSetup(**options).__enter__()
        setups.append(setup)
        return setup

    yield start
    for setup in setups:
        setup.__exit__(None, None, None)


async def locate(host: dict[str, Any]) -> Host:
    with trio.fail_after(20):
        return await Hosts([parse_host(host)]).locate(0)


def is_everybody_at(server: RedisServer, *layers: RedisStreamsChannelLayer) -> bool:
    """Whether the inboxes of these layers are read there."""
    return all(
        shard.reader._address == ("127.0.0.1", server.port) for layer in layers for shard in layer._session().shards
    )


# -- whom they name ---------------------------------------------------------------------------------------------------


async def test_master_that_a_sentinel_names_is_used(sentinel_setup: Setup) -> None:
    setup = sentinel_setup()
    assert (await locate({**setup.host, "db": 3})) == Host(("127.0.0.1", setup.master.port), database=3)
    [layer] = make_layers(setup.host)
    async with layer, traffic([layer]) as world:
        await world.publish(5)
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}


async def test_one_sentinel_that_answers_is_enough(sentinel_setup: Setup) -> None:
    setup = sentinel_setup(sentinels=2)
    setup.sentinels[0].kill()
    async with open_proxy(setup.sentinels[1].port) as silent:
        silent.stall()
        [dead, answering] = setup.host["sentinels"]
        host = {**setup.host, "sentinels": [dead, ("127.0.0.1", silent.port), answering]}
        assert (await locate(host)).address == ("127.0.0.1", setup.master.port)
        assert silent.connections == 1


async def test_when_no_sentinel_helps_the_error_says_of_each_why(
    sentinel_setup: Setup, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("trio_channels.layers.redis.topology.PATIENCE", 1)
    setup = sentinel_setup()
    [sentinel] = setup.sentinels
    async with open_proxy(sentinel.port) as silent:
        silent.stall()
        places = [free_port(), silent.port, parse_host(url).address[1]]  # type: ignore[index]
        with pytest.raises(ConnectionLost, match=f"no sentinel knows the address of '{SERVICE}'") as caught:
            await locate({**setup.host, "sentinels": [("127.0.0.1", place) for place in places]})
    error = str(caught.value)
    for place, complaint in zip(places, ("failed", "silent for 1 seconds", "unknown command"), strict=True):
        assert f":{place}" in error
        assert complaint in error


async def test_service_name_that_no_sentinel_knows_is_a_clear_error(sentinel_setup: Setup) -> None:
    setup = sentinel_setup()
    with pytest.raises(ConnectionLost, match="knows no master named 'another'"):
        await locate({**setup.host, "master_name": "another"})


async def test_server_that_is_named_and_is_a_replica_is_not_used(sentinel_setup: Setup) -> None:
    setup = sentinel_setup()
    [sentinel] = setup.sentinels
    sentinel.watch(setup.replica)
    with pytest.raises(ConnectionLost, match=f"names 127.0.0.1:{setup.replica.port}, but its role is slave"):
        await locate(setup.host)


async def test_user_who_may_not_ask_for_the_role_is_told_so(sentinel_setup: Setup) -> None:
    setup = sentinel_setup()
    setup.master.ask("ACL", "SETUSER", "bob", "on", ">hunter2", "~*", "+@all", "-role")
    with pytest.raises(ConnectionLost, match="refuses ROLE: NOPERM"):
        await locate({**setup.host, "username": "bob", "password": PASSWORD})


async def test_sentinels_and_servers_with_passwords_of_their_own(sentinel_setup: Setup) -> None:
    secret = f"of-the-servers-{PASSWORD}"
    setup = sentinel_setup(lines=(f'requirepass "{PASSWORD}"', f'sentinel auth-pass {SERVICE} "{secret}"'))
    setup.master.ask("CONFIG", "SET", "requirepass", secret)
    host = {**setup.host, "password": secret, "sentinel_kwargs": {"password": PASSWORD}}
    assert (await locate(host)).address == ("127.0.0.1", setup.master.port)
    for wrong in ({**host, "sentinel_kwargs": {}}, {**host, "password": "wrong"}):
        with pytest.raises(ConnectionLost, match=r"NOAUTH|WRONGPASS") as caught:
            await locate(wrong)
        assert PASSWORD not in str(caught.value)


# -- fail-over --------------------------------------------------------------------------------------------------------


async def check_a_fail_over(setup: SentinelSetup, fail_over: Callable[[], Any], *, members: int = 3) -> None:
    """Every hole has an explanation, and messages arrive through the new master."""
    await trio.to_thread.run_sync(setup.wait_for_the_replica)
    first, second = make_layers(setup.host, setup.host)
    async with first, second, traffic([first, second], members=members) as world:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, 300)
            await until(lambda: world.delivered > 200)
            fail_over()
            await until(lambda: is_everybody_at(setup.replica, first, second))
            await world.publish(10)
        await world.settle()
        assert world.checker.faults() == []
        assert set(world.gaps) == {receiver.name for receiver in world.checker.receivers}
        assert await redis(setup.replica.url, "EXISTS", f"{{{first.prefix}:0}}:g:room") == 1


@pytest.mark.faults
async def test_after_a_fail_over_by_command_delivery_resumes(
    sentinel_setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes sentinels ten seconds to tell the old master, which is alive, that it is none any more.
    monkeypatch.setattr(pipeline, "TOPOLOGY_INTERVAL", 0.2)
    setup = sentinel_setup()
    await check_a_fail_over(setup, lambda: setup.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE))


@pytest.mark.faults
async def test_master_killed_in_traffic_is_a_gap_and_delivery_resumes(sentinel_setup: Setup) -> None:
    setup = sentinel_setup(sentinels=3)
    await check_a_fail_over(setup, setup.master.kill, members=20)


@pytest.mark.faults
async def test_master_killed_together_with_a_sentinel_is_replaced(sentinel_setup: Setup) -> None:
    setup = sentinel_setup(sentinels=3)

    def kill() -> None:
        setup.master.kill()
        setup.sentinels.pop(0).close()

    await check_a_fail_over(setup, kill)


# -- a replica that has missed something ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knows_the_inbox", [True, pytest.param(False, marks=pytest.mark.faults)], ids=["stale", "empty"]
)
async def test_a_stale_replica_that_takes_over_is_a_gap(sentinel_setup: Setup, knows_the_inbox: bool) -> None:
    setup = sentinel_setup()
    [sentinel] = setup.sentinels
    if not knows_the_inbox:
        setup.replica.ask("REPLICAOF", "NO", "ONE")
    first, second = make_layers(setup.host, setup.host)
    async with first, second, traffic([first, second]) as world:
        await world.publish(5)
        await world.settle()
        if knows_the_inbox:
            await trio.to_thread.run_sync(setup.wait_until_replicated)
            setup.replica.ask("REPLICAOF", "NO", "ONE")
        await world.publish(20)  # the replica never gets these
        await world.settle()
        setup.master.kill()
        sentinel.watch(setup.replica)
        await world.settle()
        assert world.checker.faults() == []
        reason = "Redis went back in time" if knows_the_inbox else "the inbox was gone"
        assert {gap.reason for gaps in world.gaps.values() for gap in gaps} == {reason}
        assert [len(world.gaps[receiver.name]) for receiver in world.checker.receivers] == [1] * 6


async def test_everybody_leaves_a_detached_master_that_still_answers(
    sentinel_setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "TOPOLOGY_INTERVAL", 0.1)
    setup = sentinel_setup()
    [sentinel] = setup.sentinels
    first, second = make_layers(setup.host, setup.host)
    async with first, second, traffic([first, second]) as world:
        await world.publish(5)
        await world.settle()
        setup.replica.ask("REPLICAOF", "NO", "ONE")
        sentinel.watch(setup.replica)
        # Nobody cuts a connection, and the old master goes on to answer, and to take messages.
        await until(lambda: is_everybody_at(setup.replica, first, second))
        await world.publish(5)
        await world.settle()
        assert world.checker.faults() == []
        assert [len(world.gaps[receiver.name]) for receiver in world.checker.receivers] == [1] * 6


async def test_receiver_leaves_a_detached_master_that_still_answers(
    sentinel_setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "TOPOLOGY_INTERVAL", 0.1)
    setup = sentinel_setup()
    [layer] = make_layers(setup.host)
    received: list[dict[str, Any]] = []

    async def receive() -> None:
        received.append(await layer.receive("jobs"))

    async with layer, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        key = f"{{{layer.prefix}:0}}:c:jobs"
        await until(lambda: setup.replica.ask("EXISTS", key))
        setup.replica.ask("REPLICAOF", "NO", "ONE")
        setup.sentinels[0].watch(setup.replica)
        await until(lambda: is_everybody_at(setup.replica, layer))
        await layer.send("jobs", {"type": "job"})
        await until(lambda: received)
        assert received == [{"type": "job"}]


async def test_that_no_sentinel_answers_is_no_reason_to_leave_the_master(
    sentinel_setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "TOPOLOGY_INTERVAL", 0.01)
    setup = sentinel_setup()
    async with open_proxy(setup.sentinels[0].port) as proxy:
        [layer] = make_layers({**setup.host, "sentinels": [("127.0.0.1", proxy.port)]})
        async with layer, traffic([layer]) as world:
            setup.sentinels[0].kill()
            looks = proxy.connections
            await until(lambda: proxy.connections > looks + 2)
            await world.publish(5)
            await world.settle()
            assert layer._session().shards[0].pipeline.statistics().connections == 1
            assert world.checker.faults() == []
            assert world.gaps == {}


@pytest.mark.faults
async def test_master_that_takes_nothing_without_its_replica_is_left(sentinel_setup: Setup) -> None:
    setup = sentinel_setup(options=("--min-replicas-to-write", "1"))
    [sentinel] = setup.sentinels
    [layer] = make_layers(setup.host)
    async with layer, traffic([layer]) as world:
        await world.publish(5)
        await world.settle()
        setup.replica.ask("CONFIG", "SET", "min-replicas-to-write", 0)
        setup.replica.ask("REPLICAOF", "NO", "ONE")
        sentinel.watch(setup.replica)
        await world.publish(5)
        await world.settle()
        assert is_everybody_at(setup.replica, layer)
        assert world.checker.faults() == []
        assert [published.raised for published in world.checker.streams.values()] == [set()]
