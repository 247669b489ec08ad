"""Keeping messages on Redis: messages that share a command or come again, and the length of a history's stream."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis import history as redis_history
from trio_channels.layers.redis.positions import format_position

from .test_history import HISTORY, KEPT, OwnRedis, entries, fill, key_of, message
from .world import held_back, make_layers, redis, until


def parts_of(layer: RedisStreamsChannelLayer, *rows: tuple[str, int, bytes]) -> list[Any]:
    """Messages as the pipeline gets them; each row is a group, a number, and an identity or nothing."""
    keeps, rule = layer._session().shard_for("room").history.keeps, layer._histories.of("room")
    assert rule is not None
    return [
        keeps.part(group, layer._codec.pack(0, group, message(number), identity=identity), rule, identity)
        for group, number, identity in rows
    ]


async def test_refused_message_does_not_affect_others_in_its_command(url: str) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        shard = layer._session().shard_for("room")
        await redis(url, "SET", shard.keys.history("room.bad"), "x")
        await redis(url, "LPUSH", shard.keys.noted(b"b"), "x")
        parts = parts_of(layer, ("room", 1, b""), ("room.bad", 2, b""), ("room", 3, b"b"), ("room", 4, b"c"))
        for _ in range(2):  # the command comes twice
            first, bad_history, bad_note, last = await shard.pipeline.call(*shard.history.keeps(parts))
            assert "WRONGTYPE" in str(bad_note)
            assert [kept["n"] for kept in (await layer.history("room")).messages] == [1, 4]
            assert first < last
            assert bad_history == b"" or "WRONGTYPE" in str(bad_history)


async def test_messages_that_may_come_again_share_a_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer, layer.subscribe("room", "room2") as events:
        shard = layer._session().shard_for("room")
        sizes: list[int] = []
        original = redis_history.GroupKeeps.__call__

        def counted(keeps: redis_history.GroupKeeps, messages: list[Any]) -> tuple[Any, ...]:
            sizes.append(len(messages))
            return original(keeps, messages)

        monkeypatch.setattr(redis_history.GroupKeeps, "__call__", counted)
        async with trio.open_nursery() as nursery:
            with held_back(shard.pipeline):
                for number, identity in enumerate([b"a", b"b", b"a", b"c"]):
                    group = "room" if identity == b"a" else "room2"
                    nursery.start_soon(layer.group_send_once, group, message(number), identity * 16)
                    await trio.lowlevel.checkpoint()
                await until(lambda: shard.pipeline.statistics().waiting >= 4)
        assert sizes == [4]
        items: list[Any] = [await anext(events) for _ in range(3)]
        assert sorted(item["n"] for item in items) == [0, 1, 3]


@pytest.mark.parametrize("late", [False, True])
async def test_noted_message_gets_its_first_answer_again(url: str, late: bool) -> None:
    [layer] = make_layers(url, history=HISTORY)
    async with layer, layer.subscribe("room") as events:
        shard = layer._session().shard_for("room")
        rows = [("room", 1, b"a" * 16), ("room", 2, b""), ("room", 3, b"b" * 16)]
        first, _, last = await shard.pipeline.call(*shard.history.keeps(parts_of(layer, *rows)))
        if late:  # the history has deleted the messages since
            await redis(url, "XTRIM", key_of(layer), "MAXLEN", 1)
        again = await shard.pipeline.call(*shard.history.keeps(parts_of(layer, rows[0], ("room", 4, b""), rows[2])))
        assert (again[0], again[2]) == (first, last)
        items: list[Any] = [await anext(events) for _ in range(4)]
        assert [item["n"] for item in items] == [1, 2, 3, 4]


async def test_stream_is_bounded_and_read_exactly(url: str) -> None:
    """A send deletes whole nodes, of 100 entries. A reader gets the promised messages, and deletes the others."""
    [layer] = make_layers(url, history=HISTORY)
    async with layer:
        shard = layer._session().shard_for("room")
        for _ in range(3):
            await shard.pipeline.call(*shard.history.keeps(parts_of(layer, *(("room", n, b"") for n in range(100)))))
            assert KEPT < len(await entries(url, layer)) <= KEPT + 1 + 100
        found = await entries(url, layer)
        assert len(found) > KEPT + 1
        epoch = shard.history.keeps.epoch[:8].encode()
        oldest, too_old = (format_position(epoch, found[-n][0], found[-n][1][1], "room") for n in (KEPT + 1, KEPT + 2))
        assert not (await layer.history("room", since=too_old, limit=1)).recovered
        assert [kept["n"] for kept in (await layer.history("room", since=oldest)).messages] == [95, 96, 97, 98, 99]
        assert len(await entries(url, layer)) == KEPT + 1


async def test_renewed_history_has_no_more_than_it_keeps(own_redis: OwnRedis) -> None:
    """This holds even for a stream of a single node, of which a send deletes nothing."""
    server = own_redis()
    server.ask("CONFIG", "SET", "stream-node-max-entries", 0, "stream-node-max-bytes", 0)
    [layer] = make_layers(server.url, history=HISTORY)
    async with layer:
        await fill(layer, 1, 3 * KEPT)
        assert len(await entries(server.url, layer)) == 3 * KEPT
        layer._session().shard_for("room").history.keeps._known.clear()
        await fill(layer, 1, 1)
        assert len(await entries(server.url, layer)) == KEPT + 1
