"""Redis Cluster: real nodes; some of them dead, killed in traffic, replaced; slots that move in traffic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, probe
from trio_channels.layers.redis.connection import ConnectionLost
from trio_channels.layers.redis.hosts import parse_host
from trio_channels.layers.redis.topology import Cluster, Hosts, key_slot, shard_of

from ...ports import free_port
from ...redis_server import RedisServer
from ...redis_setups import ClusterSetup
from .proxy import open_proxy
from .world import Traffic, make_layers, traffic, until

pytestmark = pytest.mark.slow

Setup = Callable[..., ClusterSetup]

SHARDS = 4
#: One group in each shard.
GROUPS = [next(f"room-{n}" for n in range(100) if shard_of(f"room-{n}", SHARDS) == shard) for shard in range(SHARDS)]


@pytest.fixture
def own_cluster(redis_server: RedisServer) -> Iterator[Setup]:
    """Makes a cluster for this test alone."""
    setups: list[ClusterSetup] = []

    def start(*options: str, **more: Any) -> ClusterSetup:
        setup = ClusterSetup(*options, **more).__enter__()
        setups.append(setup)
        return setup

    yield start
    for setup in setups:
        setup.__exit__(None, None, None)


def slot_of(layer: RedisStreamsChannelLayer, shard: int) -> int:
    return key_slot(f"{layer.prefix}:{shard}")


def shards_on(setup: ClusterSetup, node: RedisServer, layer: RedisStreamsChannelLayer) -> list[int]:
    return [shard for shard in range(SHARDS) if setup.owner(slot_of(layer, shard)) is node]


def spread_prefix(setup: ClusterSetup) -> str:
    """A prefix whose shards are on all the masters."""
    return next(
        prefix
        for prefix in (f"spread-{number}" for number in range(1000))
        if len({setup.owner(key_slot(f"{prefix}:{shard}")).port for shard in range(SHARDS)}) == len(setup.masters)
    )


@asynccontextmanager
async def cluster_traffic(
    setup: ClusterSetup, *, members: int = 2, **options: Any
) -> AsyncIterator[tuple[list[RedisStreamsChannelLayer], Traffic]]:
    layers = make_layers(setup.hosts, setup.hosts, prefix=spread_prefix(setup), **options)
    first, second = layers
    async with first, second, traffic(layers, members=members, groups=GROUPS) as world:
        yield layers, world


# -- owners of slots --------------------------------------------------------------------------------------------------


async def test_cluster_decides_where_the_shards_are(redis_cluster: ClusterSetup) -> None:
    prefix = spread_prefix(redis_cluster)
    cluster = Cluster([parse_host(redis_cluster.nodes[0].url)], prefix, SHARDS)
    for shard in range(SHARDS):
        owner = redis_cluster.owner(key_slot(f"{prefix}:{shard}"))
        assert (await cluster.locate(shard)).address == ("127.0.0.1", owner.port)


async def test_traffic_through_all_nodes_loses_nothing(redis_cluster: ClusterSetup) -> None:
    async with cluster_traffic(redis_cluster) as (layers, world):
        await world.publish(20)
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}
        for node in redis_cluster.masters:
            assert [key for key in node.ask("KEYS", "*") if key.startswith(b"{" + layers[0].prefix.encode())]


async def test_one_host_that_is_alive_is_enough(redis_cluster: ClusterSetup) -> None:
    async with open_proxy(redis_cluster.nodes[0].port) as silent:
        silent.stall()
        dead = f"redis://127.0.0.1:{free_port()}"
        [layer] = make_layers({"cluster": [dead, silent.url, redis_cluster.nodes[2].url]})
        async with layer, traffic([layer], groups=GROUPS) as world:
            await world.publish(5)
            await world.settle()
            assert world.checker.faults() == []
            assert world.gaps == {}


async def test_when_no_host_is_a_node_the_error_says_of_each_why(url: str) -> None:
    dead = f"redis://127.0.0.1:{free_port()}"
    complaint = f"no owner for shard 0: .*{dead[8:]} failed.*{url[8:]} refuses CLUSTER SLOTS: ERR This instance"
    with pytest.raises(ConnectionLost, match=complaint):
        await Cluster([parse_host(dead), parse_host(url)], "asgi", SHARDS).locate(0)


async def test_node_that_knows_no_owner_is_not_the_last_word(own_redis: Any, redis_cluster: ClusterSetup) -> None:
    alone = own_redis("--cluster-enabled", "yes")
    cluster = Cluster([parse_host(alone.url)], "asgi", SHARDS)
    with pytest.raises(ConnectionLost, match=f"127.0.0.1:{alone.port} knows no owner of slot {key_slot('asgi:0')}"):
        await cluster.locate(0)
    both = Cluster([parse_host(alone.url), parse_host(redis_cluster.nodes[0].url)], "asgi", SHARDS)
    owner = redis_cluster.owner(key_slot("asgi:0"))
    assert (await both.locate(0)).address == ("127.0.0.1", owner.port)


async def test_something_else_that_answers_is_not_in_the_way(redis_cluster: ClusterSetup) -> None:
    async def agree(client: trio.SocketStream) -> None:
        async for data in client:
            await client.send_all(b"+OK\r\n" * data.count(b"*"))

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, agree, [listener])
        host = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        seeds = [parse_host(f"redis://{host}"), parse_host(redis_cluster.nodes[0].url)]
        with pytest.raises(ConnectionLost, match=f"{host} does not answer like Redis"):
            await Cluster(seeds[:1], "asgi", SHARDS).locate(0)
        with pytest.raises(ConnectionLost, match=f"{host} does not answer like Redis"):
            await Hosts([parse_host({"sentinels": [host.split(":")], "master_name": "m"})]).locate(0)
        owner = redis_cluster.owner(key_slot("asgi:0"))
        assert (await Cluster(seeds, "asgi", SHARDS).locate(0)).address == ("127.0.0.1", owner.port)
        nursery.cancel_scope.cancel()


async def test_node_without_an_address_is_where_it_was_asked(own_redis: Any) -> None:
    alone = own_redis("--cluster-enabled", "yes")
    alone.ask("CLUSTER", "ADDSLOTS", *range(16_384))
    assert (await Cluster([parse_host(f"redis://localhost:{alone.port}")], "x", 1).locate(0)).address == (
        "localhost",
        alone.port,
    )
    host = await Cluster([parse_host(f"unix://{alone.socket}")], "x", 1).locate(0)
    assert host.address == ("localhost", alone.port)


# -- nodes that die ---------------------------------------------------------------------------------------------------


@pytest.mark.faults
async def test_node_killed_in_traffic_is_replaced_by_its_replica(own_cluster: Setup) -> None:
    setup = own_cluster(replicas=1)
    async with cluster_traffic(setup, timeout=15.0) as (layers, world):
        victim = setup.masters[1]
        lost = shards_on(setup, victim, layers[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, 200)
            await until(lambda: world.delivered > 200)
            victim.kill()
        await world.settle()
        assert world.checker.faults() == []
        replica = setup.nodes[len(setup.masters) + 1]
        for layer in layers:
            for number, shard in enumerate(layer._session().shards):
                assert (shard.delivery.gaps > 0) == (number in lost)
                assert (shard.reader._address == ("127.0.0.1", replica.port)) == (number in lost)


@pytest.mark.faults
async def test_killed_node_costs_its_shards_only_until_it_is_back(
    own_cluster: Setup,
) -> None:
    setup = own_cluster("--cluster-require-full-coverage", "no")
    async with cluster_traffic(setup, timeout=3.0) as (layers, world):
        victim = setup.masters[1]
        lost = shards_on(setup, victim, layers[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.publish, 200)
            await until(lambda: world.delivered > 200)
            victim.kill()
            await until(lambda: any(published.raised for published in world.checker.streams.values()))
            await trio.to_thread.run_sync(victim.start)
        await world.settle()
        assert world.checker.faults() == []
        for stream, published in world.checker.streams.items():
            assert not published.raised or shard_of(stream[1], SHARDS) in lost
        for layer in layers:
            for number, shard in enumerate(layer._session().shards):
                assert (shard.delivery.gaps > 0) == (number in lost)


@pytest.mark.faults
async def test_cluster_that_is_down_as_a_whole_raises_and_comes_back(own_cluster: Setup) -> None:
    setup = own_cluster()
    async with cluster_traffic(setup, timeout=1.0) as (layers, world):
        await world.publish(5)
        victim = setup.masters[0]
        victim.kill()

        async def down() -> bool:
            # Every shard refuses with CLUSTERDOWN, not the victim's alone.
            for group in GROUPS:
                try:
                    message = world.checker.stamp("p0", group)
                    await layers[0].group_send(group, message)
                except ChannelLayerUnavailable:
                    world.checker.raised(message)
                else:
                    return False
            return True

        await until(down)
        assert any("CLUSTERDOWN" in shard.pipeline._last_error for shard in layers[0]._session().shards)
        await trio.to_thread.run_sync(victim.start)
        await world.settle()
        assert world.checker.faults() == []


# -- slots that move --------------------------------------------------------------------------------------------------


async def check_a_move(setup: ClusterSetup, *, messages: int, moves: int, members: int = 2) -> None:
    """A shard's slot goes from node to node in traffic, a few keys at a time; nothing is lost, doubled, or raised."""
    async with cluster_traffic(setup, members=members, timeout=15.0) as (layers, world):
        slot = slot_of(layers[0], 0)
        source = setup.owner(slot)
        places = [source, *(node for node in setup.masters if node is not source)]
        for number in range(moves):
            source, target = places[number % len(places)], places[(number + 1) % len(places)]
            begin = world.delivered
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.publish, messages)
                await until(lambda begin=begin: world.delivered > begin + 20)
                setup.begin_move(slot, source, target)
                while setup.move_keys(slot, source, target, count=1):  # noqa: ASYNC110
                    await trio.sleep(0.02)  # traffic meets a half-moved slot
                setup.end_move(slot, target)
            await world.settle()
            for layer in layers:
                assert layer._session().shards[0].reader._address == ("127.0.0.1", target.port)
        assert world.checker.faults() == []
        assert [published.raised for published in world.checker.streams.values()] == [set()] * 8
        # A reader cannot tell a moved slot from a fail-over to a replica, which may lose messages: members get a gap.
        assert [layer._session().shards[0].delivery.gaps for layer in layers] == [moves] * 2
        assert all(shard.delivery.gaps == 0 for layer in layers for shard in layer._session().shards[1:])


async def test_slot_that_moves_in_traffic_costs_nothing(redis_cluster: ClusterSetup) -> None:
    await check_a_move(redis_cluster, messages=50, moves=2)


async def test_message_to_a_half_moved_slot_is_sent_later(
    redis_cluster: ClusterSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No probes: a probe would meet missing keys, and be repeated, with all commands behind it, until they are there.
    monkeypatch.setattr(probe, "INTERVAL", 1000)
    first, second = make_layers(redis_cluster.hosts, redis_cluster.hosts)
    async with first, second, first.subscribe(GROUPS[0]) as mine, second.subscribe(GROUPS[0]) as theirs:
        slot = slot_of(first, 0)
        source = redis_cluster.owner(slot)
        target = next(node for node in redis_cluster.masters if node is not source)
        own = next(f"own-{n}" for n in range(100) if shard_of(f"own-{n}", SHARDS) == 0)
        async with first.subscribe(own) as alone, trio.open_nursery() as nursery:
            redis_cluster.begin_move(slot, source, target)
            inbox = second._session().shards[0].keys.inbox
            source.ask("MIGRATE", "127.0.0.1", target.port, inbox, 0, 5_000)
            for number in range(20):
                group = own if number % 2 else GROUPS[0]
                nursery.start_soon(first.group_send, group, {"type": "x", "n": number})
            got: list[int] = []
            with trio.fail_after(20):
                while len(got) < 10:  # the inbox of `first` has not moved
                    item = await anext(alone)
                    got += [] if isinstance(item, Gap) else [item["n"]]
            assert sorted(got) == list(range(1, 20, 2))
            while redis_cluster.move_keys(slot, source, target):
                pass
            redis_cluster.end_move(slot, target)
            for events in (mine, theirs):
                got = []
                with trio.fail_after(20):
                    while len(got) < 10:
                        item = await anext(events)
                        got += [] if isinstance(item, Gap) else [item["n"]]
                assert sorted(got) == list(range(0, 20, 2))


async def test_named_channel_whose_slot_moves_loses_and_doubles_nothing(redis_cluster: ClusterSetup) -> None:
    [layer] = make_layers(redis_cluster.hosts)
    jobs = next(f"jobs-{n}" for n in range(100) if shard_of(f"jobs-{n}", SHARDS) == 0)
    received: list[int] = []

    async def receive() -> None:
        while True:
            received.append((await layer.receive(jobs))["n"])

    async def send() -> None:
        for number in range(100):
            await layer.send(jobs, {"type": "job", "n": number})

    async with layer, trio.open_nursery() as nursery:
        slot = slot_of(layer, 0)
        source = redis_cluster.owner(slot)
        target = next(node for node in redis_cluster.masters if node is not source)
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await until(lambda: len(received) > 10)
        redis_cluster.begin_move(slot, source, target)
        while redis_cluster.move_keys(slot, source, target, count=1):  # noqa: ASYNC110
            await trio.sleep(0.01)
        redis_cluster.end_move(slot, target)
        await until(lambda: len(received) >= 100)
        nursery.cancel_scope.cancel()
    assert received == list(range(100))


@pytest.mark.faults
async def test_slot_that_moves_four_times_in_traffic_costs_nothing(own_cluster: Setup) -> None:
    await check_a_move(own_cluster(), messages=100, moves=4, members=10)
