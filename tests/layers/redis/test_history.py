"""Histories on Redis: the cost of a send, commands that come twice, lost data, members that join in traffic."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import Gap, Recovery
from trio_channels.layers.redis import RedisStreamsChannelLayer, probe
from trio_channels.layers.redis import history as redis_history
from trio_channels.layers.redis.history import Reading
from trio_channels.layers.redis.positions import format_position
from trio_channels.layers.redis.scripts import HISTORY_EPOCH

from ...redis_server import KEEPS_ALL, RedisServer
from .world import make_layers, redis, until

OwnRedis = Callable[..., RedisServer]

KEPT = 5
HISTORY = {"room*": {"messages": KEPT, "seconds": 600}}
NOT_RECOVERED = Gap(None, "not recovered")
#: Commands that sends and reads of history use.
COUNTED = ("xadd", "hgetall", "get", "xrange", "xrevrange", "xtrim", "time", "exists", "hset", "hincrby")


def message(number: int) -> dict[str, Any]:
    return {"type": "test.message", "n": number}


async def fill(layer: RedisStreamsChannelLayer, first: int, last: int) -> list[str]:
    return [str(await layer.group_send("room", message(number))) for number in range(first, last + 1)]


def key_of(layer: RedisStreamsChannelLayer) -> str:
    return layer._session().shard_for("room").keys.history("room")


async def entries(url: str, layer: RedisStreamsChannelLayer) -> list[Any]:
    """The entries of the history of "room"."""
    return list(await redis(url, "XRANGE", key_of(layer), "-", "+"))


async def recovered(layer: RedisStreamsChannelLayer, position: str | None) -> bool:
    return (await layer.history("room", since=position)).recovered


async def calls(url: str) -> dict[str, int]:
    """How often Redis has run each of the counted commands."""
    lines = (await redis(url, "INFO", "commandstats")).decode()
    found = {name: int(count) for name, count in re.findall(r"cmdstat_(\w+):calls=(\d+)", lines)}
    return {name: found.get(name, 0) for name in COUNTED}


async def test_kept_message_costs_one_command_more(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "INTERVAL", 3600)
    url = own_redis().url
    [layer] = make_layers(url, history=HISTORY)
    [without] = make_layers(url)

    async def cost(layer: RedisStreamsChannelLayer, group: str) -> dict[str, int]:
        await layer.group_send(group, message(0))  # the first send creates the history, which costs more
        for _ in range(20):
            before = await calls(url)
            for number in range(20):
                await layer.group_send(group, message(number))
            after = await calls(url)
            if after["xtrim"] == before["xtrim"]:  # else a process has renewed the lease of its inbox meanwhile
                break
        return {name: after[name] - before[name] for name in COUNTED}

    async with layer, without:
        plain = await cost(without, "room")
        assert plain == dict.fromkeys(COUNTED, 0) | {"hgetall": 20}
        assert await cost(layer, "other") == plain
        assert await cost(layer, "room") == plain | {"xadd": 20}


async def test_layer_without_history_asks_for_no_epoch(url: str) -> None:
    layer, without = *make_layers(url, history=HISTORY), *make_layers(url)
    for opened, wanted in ((layer, True), (without, False)):
        async with opened:
            assert await redis(url, "EXISTS", f"{{{opened.prefix}:0}}:epoch") == wanted


async def test_other_process_gets_the_same_positions(url: str) -> None:
    first, second = make_layers(url, url, history=HISTORY)
    async with first, second, second.subscribe("room") as events:
        sent = await fill(first, 1, 3)
        items: list[Any] = [await anext(events) for _ in sent]
        assert [item["history"]["position"] for item in items] == sent
        assert [kept["history"]["position"] for kept in (await second.history("room")).messages] == sent
        assert await recovered(second, sent[0])


@pytest.mark.parametrize("late", [False, True])
async def test_command_that_comes_twice_is_kept_once(url: str, late: bool) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer, layer.subscribe("room") as events:
        shard = layer._session().shard_for("room")
        rule = layer._histories.of("room")
        assert rule is not None
        keeps = shard.history.keeps
        parts = [keeps.part("room", layer._codec.pack(0, "room", message(number)), rule) for number in range(3)]
        answers = await shard.pipeline.call(*keeps(parts))
        if late:
            number = parts[-1][0]
            await redis(url, "SET", shard.keys.done, f"{number} {number}")
        assert await shard.pipeline.call(*keeps(parts)) == answers
        assert [answer.decode() for answer in answers] == [
            kept["history"]["position"].rpartition("-")[0] for kept in (await layer.history("room")).messages
        ]
        assert len(await entries(url, layer)) == 1 + 3  # and the first entry, which is no message
        await layer.group_send("room", message(3))
        items: list[Any] = [await anext(events) for _ in range(4)]
        assert [item["n"] for item in items] == [0, 1, 2, 3]


async def test_message_that_comes_again_when_it_is_deleted_has_no_position(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        shard = layer._session().shard_for("room")
        rule = layer._histories.of("room")
        assert rule is not None
        part = shard.history.keeps.part("room", layer._codec.pack(0, "room", message(1)), rule)
        await shard.pipeline.call(*shard.history.keeps([part]))
        await redis(url, "XTRIM", key_of(layer), "MAXLEN", 0)
        shard.history.keeps.part = lambda *_: part  # type: ignore[method-assign]
        assert await layer.group_send("room", message(1)) is None


async def test_key_of_another_type_affects_its_group_only(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        await redis(url, "SET", key_of(layer), "x")
        with pytest.raises(ChannelLayerUnavailable, match="WRONGTYPE"):
            await layer.group_send("room", message(1))
        assert await layer.group_send("room2", message(1)) is not None


async def test_history_is_encrypted_where_the_layer_is(url: str) -> None:
    layer, other = (
        RedisStreamsChannelLayer(hosts=[url], prefix="encrypted", symmetric_encryption_keys=[key], history=HISTORY)
        for key in ("secret", "another")
    )
    async with layer, other:
        await layer.flush()
        position, *_ = [await layer.group_send("room", {"type": "a", "text": "in the clear"}) for _ in range(2)]
        assert b"clear" not in b"".join(b"".join(fields) for _, fields in await entries(url, layer))
        found = await layer.history("room", since=position)
        assert [kept["text"] for kept in found.messages] == ["in the clear"]
        found = await other.history("room", since=position)
        assert (found.messages, found.recovered) == ((), False)
        assert sum(shard.undecodable for shard in other.shard_statistics()) == 1


async def test_message_of_another_group_is_not_shown(url: str) -> None:
    """A copy of another group's history shows no message: each blob holds its group's name."""
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        shard = layer._session().shard_for("room")
        await layer.group_send("room2", message(1))
        source = layer._session().shard_for("room2").keys.history("room2")
        await redis(url, "COPY", source, shard.keys.history("room"))
        assert (await layer.history("room")).messages == ()


# -- time -------------------------------------------------------------------------------------------------------------


async def make_old(url: str, layer: RedisStreamsChannelLayer) -> None:
    """Give the messages of "room" ids of a long time ago; earlier positions become invalid."""
    found = await entries(url, layer)
    await redis(url, "DEL", key_of(layer))
    for number, (_, fields) in enumerate(found):
        await redis(url, "XADD", key_of(layer), f"1000-{number}", *fields)


async def test_old_messages_are_not_shown_and_deleted(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        await fill(layer, 1, 3)
        await make_old(url, layer)
        found = await layer.history("room")
        assert found.messages == ()
        # The last entry stays as a position: a client that has it has missed nothing.
        assert [entry_id for entry_id, _ in await entries(url, layer)] == [b"1000-2"]
        [new] = await fill(layer, 4, 4)
        resumed = await layer.history("room", since=found.position)
        assert resumed.recovered
        assert resumed.position == new


async def test_position_before_an_old_message_is_not_recovered(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        await fill(layer, 1, 1)
        await make_old(url, layer)
        epoch = layer._session().shard_for("room").history.keeps.epoch[:8].encode()
        [(entry_id, fields)] = await entries(url, layer)
        since = format_position(epoch, entry_id, fields[1], "room")
        assert await recovered(layer, since)
        await redis(url, "XADD", key_of(layer), "1001-0", *fields)  # an entry as old, and not deleted yet
        await redis(url, "XADD", key_of(layer), "*", *fields)
        found = await layer.history("room", since=since)
        assert (found.messages, found.recovered) == ((), False)


async def test_renewals_of_many_groups_are_not_remembered_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_history, "REMEMBERED_GROUPS", 2)
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        for number in range(3):
            await layer.group_send(f"room{number}", message(1))
        history = layer._session().shard_for("room").history
        assert list(history.keeps._known) == ["room2"]
        assert repr(history).startswith("<ShardHistory of Redis shard {")


async def test_history_outlives_its_last_message(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        await fill(layer, 1, 1)
        assert 1.2 * 600_000 < await redis(url, "PTTL", key_of(layer)) <= 1.5 * 600_000
        await redis(url, "PERSIST", key_of(layer))
        await fill(layer, 2, 2)
        assert await redis(url, "PTTL", key_of(layer)) == -1  # a send renews the time limit only now and then
        layer._session().shard_for("room").history.keeps._known.clear()
        await fill(layer, 3, 3)
        assert await redis(url, "PTTL", key_of(layer)) > 600_000


# -- lost data --------------------------------------------------------------------------------------------------------


async def restart(server: RedisServer, layer: RedisStreamsChannelLayer) -> None:
    """Kill Redis, and wait until the layer is connected again."""
    before = sum(shard.pipeline.connections for shard in layer.shard_statistics())
    server.kill()
    await trio.to_thread.run_sync(server.start)
    await until(lambda: sum(shard.pipeline.connections for shard in layer.shard_statistics()) > before)
    await until(lambda: all(shard.state == "working" for shard in layer.shard_statistics()))


@pytest.mark.slow
@pytest.mark.parametrize("keeps_all", [True, False])
async def test_position_outlives_a_redis_that_loses_nothing(own_redis: OwnRedis, keeps_all: bool) -> None:
    server = own_redis(*(KEEPS_ALL if keeps_all else ()))
    [layer] = make_layers(server.url, history=HISTORY)
    async with layer:
        positions = await fill(layer, 1, 3)
        server.ask("SAVE")  # without the append-only file, Redis loses the next message, but no position before it
        await fill(layer, 4, 4)
        await restart(server, layer)
        assert await recovered(layer, positions[1]) is keeps_all
        after = (await layer.history("room")).position
        await fill(layer, 5, 5)
        assert await recovered(layer, after)


@pytest.mark.slow
async def test_promoted_replica_begins_a_new_epoch(own_redis: OwnRedis) -> None:
    for options in ((), KEEPS_ALL):
        master, replica = own_redis(*options), own_redis(*options)
        [before, after] = make_layers(master.url, replica.url, history=HISTORY)
        async with before:
            positions = await fill(before, 1, 3)
            replica.ask("REPLICAOF", "127.0.0.1", master.port)
            await until(lambda replica=replica, before=before: replica.ask("EXISTS", key_of(before)))  # type: ignore[misc]
        replica.ask("REPLICAOF", "NO", "ONE")
        async with after:
            assert [message["n"] for message in (await after.history("room")).messages] == [1, 2, 3]
            assert not await recovered(after, positions[1])


async def test_epoch_that_was_deleted_is_written_again(own_redis: OwnRedis) -> None:
    server = own_redis()
    first, second = make_layers(server.url, server.url, history=HISTORY)
    async with first:
        for use in (lambda: fill(first, 1, 1), lambda: first.history("room")):
            server.ask("FLUSHALL")
            await use()
            async with second:
                position = (await first.history("room")).position
                await fill(first, 2, 2)
                assert await recovered(second, position)


async def test_user_without_the_right_to_ask_is_told_so(own_redis: OwnRedis) -> None:
    server = own_redis()
    server.ask("ACL", "SETUSER", "chat", "on", ">secret", "~*", "+@all", "-info")
    layer = RedisStreamsChannelLayer(hosts=[f"redis://chat:secret@127.0.0.1:{server.port}"], history=HISTORY)
    with pytest.raises(ChannelLayerUnavailable, match="refuses the epoch of its histories"):
        async with layer:
            pass


async def test_epoch_stays_where_it_is_known(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        shard = layer._session().shard_for("room")
        known = await redis(url, "GET", shard.keys.epoch)
        assert await redis(url, *HISTORY_EPOCH(shard.keys.epoch, args=("other",))) == known
        await layer.flush()
        assert await redis(url, "GET", shard.keys.epoch) == known


# -- joining in traffic -----------------------------------------------------------------------------------------------

Read = Callable[[], Awaitable[Reading]]


def around_the_read(
    layer: RedisStreamsChannelLayer, monkeypatch: pytest.MonkeyPatch, around: Callable[[Read], Awaitable[Reading]]
) -> None:
    """Call `around` when a joining member reads the history, so that a test can act before and after the read."""
    history = layer._session().shard_for("room").history
    original = history.read

    async def read(*arguments: Any) -> Reading:
        return await around(lambda: original(*arguments))

    monkeypatch.setattr(history, "read", read)


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("resumes", [True, False])
async def test_member_that_joins_in_traffic_gets_all_once(
    url: str, monkeypatch: pytest.MonkeyPatch, before: int, after: int, resumes: bool
) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer, layer.subscribe("room") as others:
        first, *_ = await fill(layer, 1, 2)

        async def around(read: Read) -> Reading:
            await fill(layer, 3, 2 + before)
            found = await read()
            await fill(layer, 3 + before, 2 + before + after)
            for _ in range(2 + before + after):
                await anext(others)
            return found

        around_the_read(layer, monkeypatch, around)
        async with layer.subscribe("room", since=first if resumes else None) as events:
            await fill(layer, 9, 9)
            items: list[Any] = []
            while not items or items[-1]["n"] != 9:
                items.append(await anext(events))
        behind = list(range(2 if resumes else 3 + before, 3 + before + after))
        assert [item["n"] for item in items] == [*behind, 9]


@pytest.mark.parametrize("resumes", [True, False])
async def test_flood_during_the_join_is_not_recovered(url: str, monkeypatch: pytest.MonkeyPatch, resumes: bool) -> None:
    [layer] = make_layers(url, history=HISTORY, capacity=3)
    async with layer, layer.subscribe("room", overflow="drop_newest") as others:
        [first] = await fill(layer, 1, 1)
        sent: list[str] = []

        async def around(read: Read) -> Reading:
            found = await read()
            for number in range(2, 7):
                sent.extend(await fill(layer, number, number))
                while (await anext(others))["n"] != number:  # type: ignore[index]
                    pass
            return found

        around_the_read(layer, monkeypatch, around)
        with layer.open_mailbox() as mailbox:
            recovery = await layer.group_add("room", mailbox.name, since=first if resumes else None)
            assert recovery == Recovery(recovered=False, position=sent[2])
            items: list[Any] = list(iter(mailbox.get_nowait, None))
            assert items[:-2] == ([NOT_RECOVERED] if resumes else [])
            assert [item["n"] for item in items[-2:]] == [5, 6]


@pytest.mark.parametrize("how", ["cancelled", "unavailable", "left", "flushed", "left and cancelled"])
async def test_join_that_does_not_end_well_leaves_no_membership(
    url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        [first] = await fill(layer, 1, 1)
        with layer.open_mailbox() as mailbox, trio.CancelScope() as scope:

            async def around(read: Read) -> Reading:
                if how.startswith("left"):
                    await layer.group_discard("room", mailbox.name)
                if how.endswith("cancelled"):
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
                elif how == "unavailable":
                    raise ChannelLayerUnavailable
                elif how == "flushed":
                    await layer.flush()
                    mailbox.get_nowait()
                return await read()

            around_the_read(layer, monkeypatch, around)
            try:
                recovery = await layer.group_add("room", mailbox.name, since=first)
                assert how in ("left", "flushed")
                assert recovery == Recovery(recovered=False, position=None)
            except ChannelLayerUnavailable:
                assert how == "unavailable"
        assert scope.cancelled_caught is how.endswith("cancelled")
        assert layer.statistics().memberships == 0
        assert layer._session().hub.groups == {}


async def test_gap_while_a_member_joins_stays_in_its_place(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer, layer.subscribe("room") as others:
        first, *_ = await fill(layer, 1, 2)

        async def around(read: Read) -> Reading:
            found = await read()
            await fill(layer, 3, 3)
            for _ in range(3):
                await anext(others)
            layer._session().shard_for("room").delivery.report_forgotten(["room"])
            return found

        around_the_read(layer, monkeypatch, around)
        with layer.open_mailbox() as mailbox:
            await layer.group_add("room", mailbox.name, since=first)
            items: list[Any] = list(iter(mailbox.get_nowait, None))
            assert [item if isinstance(item, Gap) else item["n"] for item in items] == [
                *(2, 3),
                Gap(None, "Redis had forgotten a group"),
            ]
            layer._session().shard_for("room").delivery.report_forgotten(["room"])
            assert mailbox.get_nowait() == Gap(None, "Redis had forgotten a group")
