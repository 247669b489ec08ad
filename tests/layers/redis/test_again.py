"""Commands that have to be sent again: in order, carried out once, counted once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import hiredis
import pytest
import trio

from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, probe
from trio_channels.layers.redis.connection import encode
from trio_channels.layers.redis.scripts import ALL_SCRIPTS

from ...redis_server import RedisServer
from .proxy import open_proxy
from .world import DEADLINE, Traffic, make_layers, redis, traffic, until

OwnRedis = Callable[..., RedisServer]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def connections_of(layer: RedisStreamsChannelLayer) -> int:
    """How many its pipeline has opened so far."""
    return sum(shard.pipeline.connections for shard in layer.shard_statistics())


async def publish_without_waiting(world: Traffic, layer: RedisStreamsChannelLayer, count: int) -> None:
    """Send so many messages, each before the answer to the one before has come."""

    async def send() -> None:
        message = world.checker.stamp("eager", "room")
        try:
            await layer.group_send("room", message)
        except ChannelLayerUnavailable:
            world.checker.raised(message)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(send)
            if number % 50 == 0:
                await trio.sleep(0.001)  # the answers of some
            else:
                await trio.lowlevel.checkpoint()


async def pass_on_one_by_one(client: trio.SocketStream, url: str, numbers: Iterator[int]) -> None:
    """Serve a connection to Redis on which the scripts are forgotten before some commands, and loaded after them."""
    commands, queues = hiredis.Reader(), False
    async with await trio.open_tcp_stream("127.0.0.1", port_of(url)) as server:
        async for data in client:
            commands.feed(bytes(data))
            while (command := commands.gets()) is not False:
                queues = command[0] == b"MULTI" or (queues and command[0] != b"EXEC")
                forget = not queues and command[0] in (b"EVALSHA", b"EXEC") and next(numbers) % 5 == 4
                if forget:
                    await redis(url, "SCRIPT", "FLUSH")
                await server.send_all(encode(*command))
                replies = hiredis.Reader()
                while replies.gets() is False:
                    answer = bytes(await server.receive_some())
                    replies.feed(answer)
                    await client.send_all(answer)
                if forget:
                    for script in ALL_SCRIPTS:
                        await redis(url, *script.load)


async def test_command_without_its_script_is_not_overtaken(own_redis: OwnRedis) -> None:
    url, numbers = own_redis().url, itertools.count()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(client: trio.SocketStream) -> None:
            with contextlib.suppress(trio.BrokenResourceError):  # the link has left
                await pass_on_one_by_one(client, url, numbers)

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        first, second = make_layers(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}", url)
        async with first, second, traffic([second]) as world:
            rounds = itertools.count()
            with trio.fail_after(DEADLINE):
                # The slower the machine is, the more messages go out as one command, and the fewer commands there are.
                while next(rounds) < 3 or connections_of(first) < 3:
                    await publish_without_waiting(world, first, 50)
            await world.settle()
            assert world.checker.faults() == []
            assert world.gaps == {}
            assert world.checker.streams["eager", "room"].raised == set()
        nursery.cancel_scope.cancel()


async def test_primary_that_is_a_replica_for_a_moment_does_not_reorder(own_redis: OwnRedis) -> None:
    url = own_redis().url
    first, second = make_layers(url, url)
    async with first, second, traffic([second]) as world:
        rounds = itertools.count()
        with trio.fail_after(DEADLINE):
            while next(rounds) < 8 or connections_of(first) < 2:  # until a command has met such a moment
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish_without_waiting, world, first, 200)
                    await trio.sleep(0.005)
                    await redis(url, "REPLICAOF", "127.0.0.1", "1")
                    await redis(url, "REPLICAOF", "NO", "ONE")
        await world.settle()
        assert world.checker.faults() == []
        assert world.gaps == {}


async def test_command_that_is_not_queued_does_not_affect_others(own_redis: OwnRedis) -> None:
    server = own_redis()
    await redis(server.url, "ACL", "SETUSER", "default", "-keys")
    [layer] = make_layers(server.url, timeout=1)
    async with layer, layer.subscribe("room") as events:
        [shard] = layer._session().shards
        refused = []

        async def ask() -> None:
            with pytest.raises(ChannelLayerUnavailable, match="NOPERM"):
                await shard.pipeline.call("KEYS", "*")
            refused.append(True)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(ask)
                await trio.lowlevel.checkpoint()
                nursery.start_soon(layer.group_send, "room", {"type": "x", "n": number})
                await trio.lowlevel.checkpoint()
        with trio.fail_after(20):
            assert [(await anext(events))["n"] for _ in range(10)] == list(range(10))  # type: ignore[index]
        assert len(refused) == 10
        assert shard.pipeline.statistics().connections == 1
        await redis(server.url, "ACL", "SETUSER", "default", "+keys")


# -- counted once -----------------------------------------------------------------------------------------------------


async def test_repeated_message_to_a_full_inbox_counts_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 1000)  # a probe takes a place, too
    async with open_proxy(port_of(url)) as before, open_proxy(port_of(url)) as behind:
        first, second = make_layers(before.url, behind.url, inbox_capacity=50)
        async with first, second, traffic([second]) as world:
            await world.settle()
            [shard] = second._session().shards

            async def trimmed() -> bool:
                return bool(await redis(url, "XLEN", shard.keys.inbox) == 0)

            await until(trimmed)
            behind.stall()
            for number in range(100):
                if number % 10 in (4, 5):  # of those that are taken, and of those that are not
                    before.lose_reply_to(b"stamped.message")
                await first.group_send("room", world.checker.stamp("p", "room"))
            assert before.lost_replies == 20
            behind.resume()
            await until(trimmed)
            await world.settle()
            assert world.checker.faults() == []
            assert list(world.gaps.values()) == [[Gap(50, "the inbox was full")]] * 3


@pytest.mark.parametrize("fits", [True, False])
async def test_repeated_message_to_a_channel_gets_the_same_answer(url: str, fits: bool) -> None:
    async with open_proxy(port_of(url)) as before, open_proxy(port_of(url)) as behind:
        first, second = make_layers(before.url, behind.url, inbox_capacity=5)
        async with first, second:
            channel = await second.new_channel()
            behind.stall()
            for _ in range(4 if fits else 5):
                await first.send(channel, {"type": "x"})
            before.lose_reply_to(b"the one")
            if fits:  # it takes the last place: there is none when it comes again
                await first.send(channel, {"type": "the one"})
            else:
                with pytest.raises(ChannelFull):
                    await first.send(channel, {"type": "the one"})
            assert before.lost_replies == 1
            assert (first.statistics().sent, first.statistics().full) == (5, int(not fits))
            behind.resume()
