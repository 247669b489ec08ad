"""The layer against a real Redis: opening and closing, full inboxes, rubbish, leaks, cancellation."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, probe
from trio_channels.layers.redis.codec import PROBE, EntryCodec
from trio_channels.layers.redis.connection import ConnectionLost, encode, open_connection
from trio_channels.layers.redis.hosts import Host, parse_host

from ...ports import free_port
from ..test_contract import cancelled_at_checkpoint, tables
from .proxy import open_proxy
from .world import DEADLINE, connections, keys, make_layers, redis, traffic, until

LAST = {"type": "last"}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def inbox_of(layer: RedisStreamsChannelLayer) -> str:
    [shard] = layer._session().shards
    return shard.keys.inbox


async def until_trimmed(url: str, layer: RedisStreamsChannelLayer) -> None:
    """Wait until the reader has acknowledged everything in its inbox."""

    async def empty() -> bool:
        return bool(await redis(url, "XLEN", inbox_of(layer)) == 0)

    await until(empty)


async def next_of(events: Any) -> Any:
    with trio.fail_after(DEADLINE):
        return await anext(events)


# -- opening and closing ----------------------------------------------------------------------------------------------


async def test_opening_without_redis_says_so_within_the_time_limit() -> None:
    port = free_port()
    [layer] = make_layers(f"redis://127.0.0.1:{port}", timeout=0.2)
    with (
        trio.fail_after(DEADLINE),
        pytest.raises(ChannelLayerUnavailable, match=rf"within 0\.2 seconds.*127\.0\.0\.1:{port}"),
    ):
        async with layer:
            pytest.fail("opened without Redis")
    assert not layer._sessions
    assert not layer._entered


async def test_layer_that_is_not_open_says_how_it_is_opened(url: str) -> None:
    [layer] = make_layers(url)
    for call in (
        lambda: layer.send("jobs", LAST),
        lambda: layer.group_send("room", LAST),
        lambda: layer.group_add("room", "jobs"),
        lambda: layer.group_discard("room", "jobs"),
        lambda: layer.receive("jobs"),
        lambda: layer.new_channel(),
        lambda: layer.flush(),
    ):
        with pytest.raises(ChannelLayerUnavailable, match="async with layer"):
            await call()
    with pytest.raises(ChannelLayerUnavailable, match="async with layer"):
        layer.open_mailbox()
    await layer.close()


async def test_layer_is_opened_once_at_a_time_and_again_afterwards(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        with pytest.raises(InvalidChannelLayerError, match="already"):
            async with layer:
                pass
        await layer.group_send("room", LAST)
    async with layer, layer.subscribe("room") as events:
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST


async def test_what_a_block_raises_comes_out_bare(url: str) -> None:
    [layer] = make_layers(url)
    with pytest.raises(KeyError):
        async with layer:
            raise KeyError
    with trio.CancelScope() as scope:
        async with layer:
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not layer._sessions


async def test_block_goes_on_after_the_layer_was_closed_in_it(url: str) -> None:
    [layer] = make_layers(url)
    went_on = False
    async with layer:
        await layer.close()
        await trio.lowlevel.checkpoint()
        with pytest.raises(ChannelLayerUnavailable):
            await layer.group_send("room", LAST)
        went_on = True
    assert went_on


async def test_closing_leaves_nothing_in_redis(url: str) -> None:
    first, second = make_layers(url, url)
    async with first:
        async with second, second.subscribe("one", "two"):
            await second.new_channel()
            await second.send("jobs", LAST)
            await second.receive("jobs")
            assert {"g:one", "g:two"} <= await keys(url, first)
            process = second._session().process
        assert not {key for key in await keys(url, first) if key.startswith(("g:", f"i:{process}"))}
        consumers = await redis(url, "XINFO", "CONSUMERS", f"{{{first.prefix}:0}}:c:jobs", "w")
        assert consumers == []


async def test_closing_without_redis_ends_within_the_time_limit(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url, timeout=1)
        with trio.fail_after(DEADLINE):
            async with layer, layer.subscribe("room"):
                proxy.stall()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n", r"needs Redis 6\.2 .* is 6\.0\.16"),
        (b"-ERR unknown command `HELLO`, with args beginning with: \r\n", r"needs Redis 6\.2 .* older than 6\.0"),
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "refuses the connection: NOAUTH"),
    ],
)
async def test_redis_that_is_too_old_is_refused_with_its_version(answer: bytes, complaint: str) -> None:
    async def old_redis(client: trio.SocketStream) -> None:
        async for data in client:
            script = b"SCRIPT" in data
            await client.send_all(b"$40\r\n%b\r\n" % (b"0" * 40) * data.count(b"SCRIPT") if script else answer)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, old_redis, [listener])
        [layer] = make_layers(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}", timeout=2)
        with pytest.raises(ChannelLayerUnavailable, match=complaint):
            async with layer:
                pytest.fail("opened on an old Redis")
        nursery.cancel_scope.cancel()


async def test_server_that_speaks_another_language_is_a_clear_error() -> None:
    async def web_server(client: trio.SocketStream) -> None:
        async for _ in client:
            await client.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, web_server, [listener])
        connection = await open_connection(Host(listener.socket.getsockname()))
        with pytest.raises(ConnectionLost, match="Protocol error"):
            await connection.exchange(("HELLO",))
        await connection.aclose()
        nursery.cancel_scope.cancel()


async def test_host_name_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(ConnectionLost, match=r"a\.\.b"):
        await open_connection(parse_host("redis://a..b"))


# -- commands that Redis refuses --------------------------------------------------------------------------------------


async def test_command_that_redis_refuses_raises_the_layers_error(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        await redis(url, "SET", f"{{{layer.prefix}:0}}:g:room", "a string")
        with pytest.raises(ChannelLayerUnavailable, match="WRONGTYPE"):
            await layer.group_send("room", LAST)
        await layer.group_send("other", LAST)


async def test_inbox_that_is_none_is_an_error_and_not_tried_again(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        keys = layer._session().shards[0].keys
        await redis(url, "SADD", keys.group("room"), "a-stranger")
        await redis(url, "SET", f"{keys.inboxes}a-stranger", "a string")
        with pytest.raises(ChannelLayerUnavailable, match=r"refuses.*WRONGTYPE"):
            await layer.group_send("room", LAST)


async def test_scripts_that_redis_has_forgotten_are_loaded_again(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        await redis(url, "SCRIPT", "FLUSH")
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST


# -- full inboxes -----------------------------------------------------------------------------------------------------


async def test_refusals_of_a_full_inbox_are_counted_in_their_place(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 1000)  # a probe takes a place in the inbox, too
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(url, proxy.url, inbox_capacity=600)  # more than one read returns
        async with first, second, traffic([second]) as world:
            for burst in range(1, 3):
                await world.settle()
                await until_trimmed(url, second)
                proxy.stall()
                for _ in range(1000):
                    await first.group_send("room", world.checker.stamp("p", "room"))
                assert await redis(url, "XLEN", inbox_of(second)) == 601  # a mark stands behind the messages
                assert int(await redis(url, "HGET", f"{inbox_of(second)}:state", "lost")) == burst * 400
                proxy.resume()
                await until_trimmed(url, second)
            await world.settle()
            assert world.checker.faults() == []
            for gaps in world.gaps.values():
                assert gaps == [Gap(400, "the inbox was full")] * 2


async def test_mark_that_is_read_twice_is_told_once(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(url, proxy.url, inbox_capacity=5)
        async with first, second, second.subscribe("room") as events:
            proxy.stall()
            for number in range(10):
                await first.group_send("room", {"type": "x", "n": number})
            proxy.cut()  # the reply with the mark is lost
            proxy.resume()
            assert [(await next_of(events))["n"] for _ in range(5)] == [0, 1, 2, 3, 4]
            assert await next_of(events) == Gap(5, "the inbox was full")
            await until_trimmed(url, second)
            await first.group_send("room", LAST)
            assert await next_of(events) == LAST


async def test_full_inbox_refuses_a_message_to_one_channel_to_its_sender(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(url, proxy.url, inbox_capacity=5)
        async with first, second:
            channel = await second.new_channel()
            proxy.stall()
            for _ in range(5):
                await first.send(channel, LAST)
            with pytest.raises(ChannelFull, match="5 messages"):
                await first.send(channel, LAST)
            assert (first.statistics().sent, first.statistics().full) == (5, 1)
            proxy.resume()


# -- rubbish ----------------------------------------------------------------------------------------------------------

RUBBISH: list[tuple[Any, ...]] = [
    ("rubbish", "x"),
    ("t", "x-1"),
    ("b", "x"),
    ("t", "x-2", "b", ""),
    ("t", "x-3", "b", b"\x01\xff\x00"),
    ("t", "x-4", "b", b"\x02" + EntryCodec().pack(0, "room", {"type": "future"})[1:]),
    ("t", "x-5", "b", EntryCodec().pack(9, "room", {"type": "unknown.kind"})),
    ("t", "x-6", "b", EntryCodec().pack(PROBE, "no number", {})),
    ("t", "x-7", "b", EntryCodec(keys=["another"]).pack(0, "room", {"type": "encrypted"})),
    ("l", "no number"),
]


async def test_rubbish_in_the_inbox_is_skipped_counted_and_logged_once(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        for fields in RUBBISH:
            await redis(url, "XADD", inbox_of(layer), "*", *fields)
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST
        [shard] = layer.shard_statistics()
        assert shard.undecodable == len(RUBBISH)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_with_keys_what_others_forge_is_skipped(url: str) -> None:
    [layer] = make_layers(url, symmetric_encryption_keys=["secret"])
    async with layer, layer.subscribe("room") as events:
        forged = EntryCodec().pack(0, "room", {"type": "forged"})
        await redis(url, "XADD", inbox_of(layer), "*", "t", "x-1", "b", forged)
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST


async def test_probe_beyond_belief_does_not_stop_the_reader(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        forged = EntryCodec().pack(PROBE, str(10**30), {})
        await redis(url, "XADD", inbox_of(layer), "*", "t", "x-1", "b", forged)
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST


# -- leaks ------------------------------------------------------------------------------------------------------------


async def test_subscriptions_and_reconnects_leave_nothing_behind(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url)
        async with layer:
            [shard] = layer._session().shards
            await layer.group_send("room", LAST)
            before = await keys(url, layer), await connections(url), trio.lowlevel.current_statistics().tasks_living

            async def cycle(number: int) -> None:
                async with layer.subscribe(f"room-{number % 7}", "common"):
                    pass

            for number in range(20):
                async with trio.open_nursery() as nursery:
                    for again in range(50):
                        nursery.start_soon(cycle, again)
                opened = proxy.connections
                proxy.cut()
                await until(lambda opened=opened: proxy.connections == opened + 2)
                await layer.group_send("room", {"type": "x", "n": number})

            await until(lambda: shard.memberships.settled and proxy.open_connections == 2)

            async def as_before() -> bool:
                now = await keys(url, layer), await connections(url), trio.lowlevel.current_statistics().tasks_living
                return now == before

            await until(as_before)
            assert tables(layer) == (0, 0, 0, 0)
            assert shard.memberships.settled
            assert not shard.memberships._known
            # A command may still be under way, such as a probe.
            await until(lambda: shard.pipeline.statistics().waiting == shard.pipeline.statistics().unanswered == 0)


async def test_calls_cancelled_in_an_outage_leave_no_commands(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url)
        async with layer:
            [shard] = layer._session().shards
            proxy.stall()
            proxy.cut()
            await until(lambda: not shard.pipeline.statistics().connected)
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(layer.group_send, "room", LAST)
                await trio.testing.wait_all_tasks_blocked()
                assert shard.pipeline.statistics().waiting == 100
                nursery.cancel_scope.cancel()
            assert shard.pipeline.statistics().waiting == 0
            proxy.resume()
            await layer.group_send("room", LAST)


async def test_more_commands_than_a_batch_holds_are_carried_out(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        async with trio.open_nursery() as nursery:
            for number in range(3000):
                nursery.start_soon(layer.group_send, "room", {"type": "x", "n": number})
        assert sorted([(await next_of(events))["n"] for _ in range(3000)]) == list(range(3000))


# -- cancellation -----------------------------------------------------------------------------------------------------


async def test_opening_that_is_cancelled_leaves_nothing_open(url: str) -> None:
    [layer] = make_layers(url)
    before = await connections(url), trio.lowlevel.current_statistics().tasks_living
    for number in range(1, 1000):
        with cancelled_at_checkpoint(number) as scope:
            async with layer:
                await layer.group_send("room", LAST)
        assert not layer._sessions
        assert not layer._entered
        if not scope.cancel_called:
            break

    async def as_before() -> bool:
        return (await connections(url), trio.lowlevel.current_statistics().tasks_living) == before

    await until(as_before)


async def test_closing_that_is_cancelled_leaves_nothing_open(url: str) -> None:
    before = await connections(url)
    for number in range(1, 1000):
        [layer] = make_layers(url)
        async with layer, layer.subscribe("room"):
            with cancelled_at_checkpoint(number) as scope:
                await layer.close()
        assert not layer._sessions
        if not scope.cancel_called:
            break

    async def as_before() -> bool:
        return await connections(url) == before

    await until(as_before)


# -- ways to reach Redis ----------------------------------------------------------------------------------------------


async def check_that_it_works(host: Any, **options: Any) -> None:
    layer = RedisStreamsChannelLayer(hosts=[host], prefix="ways", **options)
    async with layer, layer.subscribe("room") as events:
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST


async def test_several_hosts_share_the_groups(url: str, own_redis: Any) -> None:
    other = own_redis().url
    layer = RedisStreamsChannelLayer(hosts=[url, other], prefix="several")
    groups = [f"room-{number}" for number in range(8)]
    async with layer, layer.subscribe(*groups) as events:
        for group in groups:
            await layer.group_send(group, {"type": "x", "group": group})
        assert {(await next_of(events))["group"] for _ in groups} == set(groups)
        for place in (url, other):
            assert await redis(place, "KEYS", "{several:*:g:*")
        channel = await layer.new_channel()
        await layer.send(channel, LAST)
        with trio.fail_after(DEADLINE):
            assert await layer.receive(channel) == LAST


async def test_over_a_unix_socket(own_redis: Any) -> None:
    await check_that_it_works(f"unix://{own_redis().socket}")


async def test_in_another_database(own_redis: Any) -> None:
    server = own_redis()
    layer = RedisStreamsChannelLayer(hosts=[f"{server.url}/5"], prefix="ways")
    async with layer:
        assert await redis(server.url, "KEYS", "*") == []
        assert len(await redis(f"{server.url}/5", "KEYS", "*")) > 0


async def test_wire_form_of_a_password_is_in_no_error(own_redis: Any) -> None:
    server = own_redis("--requirepass", "hunter2")
    await check_that_it_works(f"redis://:hunter2@127.0.0.1:{server.port}")
    with pytest.raises(ConnectionLost, match="WRONGPASS") as caught:
        await open_connection(parse_host(f"redis://:hunter3@127.0.0.1:{server.port}"))
    assert "hunter3" not in str(caught.value)
    assert b"hunter3" in encode("AUTH", "hunter3")


@pytest.mark.parametrize("serializer_format", ["msgpack", "json"])
async def test_with_every_format_and_keys(url: str, serializer_format: Any) -> None:
    await check_that_it_works(url, serializer_format=serializer_format)
    await check_that_it_works(url, serializer_format=serializer_format, symmetric_encryption_keys=["a", "b"])
