"""Rare events: replies that nobody asked for, unexpected refusals, keys that vanish, full inboxes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import keys as _keys
from trio_channels.layers.redis import probe
from trio_channels.layers.redis.batch import results_of_transaction
from trio_channels.layers.redis.codec import EntryCodec
from trio_channels.layers.redis.connection import ReplyError, open_connection
from trio_channels.layers.redis.hosts import Host
from trio_channels.layers.redis.inbox import InboxReader
from trio_channels.layers.redis.pipeline import Pipeline

from ...redis_server import RedisServer
from .proxy import open_proxy
from .world import keys, make_layers, redis, until

pytestmark = pytest.mark.slow

OwnRedis = Callable[..., RedisServer]
LAST = {"type": "last"}


async def next_of(events: Any) -> Any:
    with trio.fail_after(20):
        return await anext(events)


# -- a server with answers of its own ---------------------------------------------------------------------------------


@asynccontextmanager
async def link_to(answer: Callable[[list[bytes], int], bytes]) -> AsyncIterator[Pipeline]:
    """A running pipeline to a server that replies `answer(command, n)` on its n-th connection."""
    connections = 0

    async def serve(client: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        number, commands = connections, hiredis.Reader()
        async for data in client:
            commands.feed(bytes(data))
            while (command := commands.gets()) is not False:
                await client.send_all(answer(command, number))

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        host = Host(("127.0.0.1", listener.socket.getsockname()[1]))

        async def locate() -> Host:
            return host

        pipeline = Pipeline("a pipeline", locate, 20)
        nursery.start_soon(pipeline.run)
        await until(lambda: pipeline.statistics().connected)
        yield pipeline
        nursery.cancel_scope.cancel()


async def test_unexpected_reply_ends_the_connection_and_no_command() -> None:
    def answer(command: list[bytes], connection: int) -> bytes:
        return b"+ONE\r\n+TWO\r\n" if command == [b"GET", b"x"] and connection == 1 else b"+OK\r\n"

    async with link_to(answer) as pipeline:
        assert await pipeline.call("GET", "x") == b"OK"
        assert pipeline.statistics().connections == 2


async def test_transaction_that_is_not_begun_is_sent_again() -> None:
    def answer(command: list[bytes], connection: int) -> bytes:
        if command == [b"MULTI"] and connection == 1 and answer.prepared:  # type: ignore[attr-defined]
            return b"-NOPERM this user has no permissions\r\n"
        answer.prepared |= command == [b"EXEC"]  # type: ignore[attr-defined]
        return b"*2\r\n+a\r\n+b\r\n" if command == [b"EXEC"] else b"+OK\r\n"

    answer.prepared = False  # type: ignore[attr-defined]
    async with link_to(answer) as pipeline:
        replies: list[bytes] = []

        async def call(name: str) -> None:
            replies.append(await pipeline.call("GET", name))

        async with trio.open_nursery() as nursery:
            for name in ("first", "a", "b"):
                nursery.start_soon(call, name)
        assert len(replies) == 3
        assert pipeline.statistics().connections == 2


def test_transaction_that_is_refused_as_a_whole_is_refused_to_each() -> None:
    refused = ReplyError("EXECABORT Transaction discarded because of: OOM command not allowed")
    assert results_of_transaction([b"OK", b"QUEUED", b"QUEUED", refused]) == [refused, refused]


async def test_connection_that_is_gone_takes_nothing_and_does_not_raise() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    connection = await open_connection(Host(("127.0.0.1", listener.socket.getsockname()[1])))
    server = await listener.accept()
    assert connection.send_nowait(b"hello") == b""
    await trio.aclose_forcefully(server)
    await trio.aclose_forcefully(listener)

    def is_gone() -> bool:
        return connection.send_nowait(b"x") == b"x"

    await until(is_gone)
    await connection.aclose()


# -- changes in Redis by others ---------------------------------------------------------------------------------------


async def test_group_that_somebody_deletes_in_redis_is_renewed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", 2.0)
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events, layer.subscribe("other") as others:
        await redis(url, "DEL", f"{{{layer.prefix}:0}}:g:room")
        await layer.group_send("room", {"type": "lost"})

        async def renewed() -> bool:
            return "g:room" in await keys(url, layer)

        await until(renewed)
        assert await next_of(events) == Gap(None, "Redis had forgotten a group")
        await until(lambda: layer._session().shards[0].memberships.settled)
        for group in ("room", "other"):
            await layer.group_send(group, {"type": "arrives"})
        assert await next_of(events) == await next_of(others) == {"type": "arrives"}


async def test_message_to_a_forgotten_membership_is_part_of_its_gap(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", 2.0)
    first, second = make_layers(url, url)
    async with first, second, second.subscribe("room") as events:
        [shard] = second._session().shards
        deliver, held = shard.delivery.deliver, trio.Event()

        async def deliver_later(*entry: Any) -> None:
            await held.wait()
            rest = deliver(*entry)
            assert rest is None

        monkeypatch.setattr(shard.delivery, "deliver", deliver_later)
        await first.group_send("room", {"type": "before"})
        await redis(url, "DEL", f"{{{second.prefix}:0}}:g:room")
        await first.group_send("room", {"type": "lost"})
        assert await next_of(events) == Gap(None, "Redis had forgotten a group")
        await until(lambda: shard.memberships.settled)
        await first.group_send("room", {"type": "after"})
        held.set()
        assert await next_of(events) == {"type": "after"}


async def test_flush_by_another_process_is_told_and_memberships_return(url: str) -> None:
    first, second = make_layers(url, url)
    async with first, second, second.subscribe(*(f"room-{number}" for number in range(1500))) as events:
        await first.flush()
        assert await next_of(events) == Gap(0, "flushed")
        [shard] = second._session().shards
        await until(lambda: shard.memberships.settled)
        await first.group_send("room-1", LAST)
        assert await next_of(events) == LAST


async def test_message_to_a_process_that_has_ended_is_counted(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        await layer.send("specific.0123456789abcdef!abc", LAST)
        await layer.send(f"specific.{layer._session().process}!abc", LAST)
        await until(lambda: layer.statistics().gone == 2)


async def test_refused_farewell_does_not_keep_the_layer_from_closing(own_redis: OwnRedis) -> None:
    server = own_redis()
    [layer] = make_layers(server.url, timeout=1)
    async with layer, layer.subscribe("room"):
        await redis(server.url, "ACL", "SETUSER", "default", "-del", "-evalsha")
    assert not layer._sessions


async def test_redis_that_does_not_count_entries_is_read_as_well(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = InboxReader._check_inbox

    def as_before_7(reader: InboxReader, connection: Any, reply: Any) -> None:
        original(reader, connection, [*reply[:2], -1])

    monkeypatch.setattr(InboxReader, "_check_inbox", as_before_7)
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        await layer.group_send("room", LAST)
        assert await next_of(events) == LAST


# -- probes -----------------------------------------------------------------------------------------------------------


async def test_probes_in_an_outage_do_no_harm(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 0.02)
    async with open_proxy(int(url.rpartition(":")[2])) as proxy:
        first, second = make_layers(url, proxy.url, timeout=1)
        async with first, second, second.subscribe("room") as events:
            [shard] = second._session().shards
            call, failures = shard.pipeline.call, []

            async def recording(*command: Any) -> Any:
                try:
                    return await call(*command)
                except ChannelLayerUnavailable as error:
                    failures.append(error)
                    raise

            shard.pipeline.call = recording  # type: ignore[method-assign]
            connections = proxy.connections
            proxy.stall()
            # The pipeline has given up one connection, and a probe its call.
            await until(lambda: failures and proxy.connections > connections)
            proxy.resume()
            await first.group_send("room", LAST)
            while await next_of(events) != LAST:
                pass
            assert second.statistics().healthy


async def test_reader_that_misses_messages_to_oneself_attaches_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 0.01)
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        [shard] = layer._session().shards
        attach_again = InboxReader.attach_again

        def attach_again_once(reader: InboxReader, doubt: str) -> None:
            monkeypatch.setattr(probe, "INTERVAL", 1000)  # no more probes: a slow reader would have to begin again
            attach_again(reader, doubt)

        monkeypatch.setattr(InboxReader, "attach_again", attach_again_once)
        monkeypatch.setattr(shard.delivery, "_on_probe", lambda number: None)  # as if another reader took the probes
        assert await next_of(events) == Gap(None, "probes did not arrive")
        monkeypatch.undo()
        await layer.group_send("room", LAST)
        while await next_of(events) != LAST:
            pass


async def test_probe_that_a_full_inbox_refuses_is_not_missed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 0.001)
    [layer] = make_layers(url, inbox_capacity=1)
    async with layer:
        [shard] = layer._session().shards
        call, answers = shard.pipeline.call, []

        async def recording(*command: Any) -> Any:
            answers.append(await call(*command))
            return answers[-1]

        shard.pipeline.call = recording  # type: ignore[method-assign]

        async def probe_refused() -> bool:
            for _ in range(50):
                await redis(url, "XADD", shard.keys.inbox, "*", "rubbish", "x")
            return 0 in answers

        await until(probe_refused)
        assert shard.reader.attachments == 1


# -- other cases ------------------------------------------------------------------------------------------------------


def test_without_cryptography_encryption_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(InvalidChannelLayerError, match=r"trio-channels\[crypto\]"):
        EntryCodec(keys=["secret"])


async def test_everything_can_be_looked_at(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        session = layer._session()
        [shard] = session.shards
        parts = (layer, session, shard, shard.keys, shard.supervisor, shard.pipeline, shard.memberships, shard.delivery)
        for part in (*parts, shard.reader, shard._prober, shard.delivery.duplicates):
            assert repr(part).startswith(f"<{type(part).__name__}")
